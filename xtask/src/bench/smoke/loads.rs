//! Loads of claims, each beside its ceiling: the same client, shape and number of tokens on a route that the gateway
//! answers by itself.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

pub(super) struct Load {
    pub(super) title: String,
    pub(super) claims: Value,
    pub(super) ceiling: Value,
}

pub(super) fn write(text: &mut String, loads: &[Load]) -> Result<()> {
    writeln!(
        text,
        "## Claims\n\nThrough the gateway, every load audited. In parentheses the ceiling: the same load on the \
         gateway's no-op route, where no service is asked; beside it the share that is reached.\n"
    )?;
    writeln!(
        text,
        "| load | answers/s | share | p50 ms | p90 ms | p99 ms | max ms |\n|---|---:|---:|---:|---:|---:|---:|"
    )?;
    loads.iter().try_for_each(|load| row(text, load))
}

fn row(text: &mut String, Load { title, claims, ceiling }: &Load) -> Result<()> {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (rate, most) = (number(&claims["rate"]), number(&ceiling["rate"]));
    write!(text, "| {title} | {rate:.0} ({most:.0}) | {:.0} % |", 100.0 * rate / most)?;
    for key in ["p50", "p90", "p99", "max"] {
        let of = |load: &Value| number(&load["latencyMs"][key]);
        write!(text, " {:.1} ({:.1}) |", of(claims), of(ceiling))?;
    }
    writeln!(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_figure_stands_beside_its_ceiling() {
        let claims = json!({"rate": 750.02, "latencyMs": {"p50": 1.25, "p90": 2.0, "p99": 5.0, "max": 9.0}});
        let ceiling = json!({"rate": 3000.0, "latencyMs": {"p50": 0.5, "p90": 0.6, "p99": 0.7, "max": 0.8}});
        let mut text = String::new();
        row(&mut text, &Load { title: "x".to_owned(), claims, ceiling }).unwrap();
        assert_eq!(text, "| x | 750 (3000) | 25 % | 1.2 (0.5) | 2.0 (0.6) | 5.0 (0.7) | 9.0 (0.8) |\n");
    }
}
