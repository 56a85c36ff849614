//! What `up` and `status` show: what runs where, how to get in, and lines to copy.

use comfy_table::{Cell, Color, ContentArrangement, LineStyle, Table, presets};
use console::style;

use crate::state::{Phase, ProcessState, State};

pub(crate) fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    let style = presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(Cell::new));
    table
}

/// The processes of a run.
pub(crate) fn processes(state: &State) -> String {
    let mut table = new(&["process", "where", "admin", "pid", "state"]);
    for server in &state.servers {
        table.add_row(row(&server.name, &server.address, "", &server.process));
    }
    for service in &state.services {
        let (url, admin) = (service.url.as_deref(), service.admin_url.as_deref());
        table.add_row(row(
            &service.instance,
            url.unwrap_or_default(),
            admin.unwrap_or_default(),
            &service.process,
        ));
    }
    table.to_string()
}

fn row(name: &str, place: &str, admin: &str, process: &ProcessState) -> [Cell; 5] {
    let pid = process.pid.filter(|_| process.running).map(|pid| pid.to_string());
    let mut text = match (process.running, process.ready) {
        (true, true) => process.started_in_ms.map_or("ready".to_owned(), |ms| format!("ready after {ms} ms")),
        (true, false) => "starting".to_owned(),
        (false, _) => "down".to_owned(),
    };
    if process.restarts > 0 {
        text.push_str(&format!(", restarted {}x", process.restarts));
    }
    let color = if process.ready { Color::Green } else { Color::Yellow };
    let state = Cell::new(text).fg(color);
    [Cell::new(name), Cell::new(place), Cell::new(admin), Cell::new(pid.unwrap_or_default()), state]
}

/// Addresses for people, the admin, and three lines to copy.
pub(crate) fn addresses(state: &State, coupon: Option<u64>) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{} {value}", style(format!("{name:<14}")).bold()));
        }
    };
    line("gateway", &state.gateway);
    line("trace UI", &state.trace_ui);
    line("Consul UI", &state.consul_ui);
    line("config server", &state.config_server);
    line("config git", &state.config_repository);
    let admin = state.admin.as_ref().filter(|_| state.gateway.is_some());
    line("admin", &admin.map(|admin| format!("{}  password {}", admin.email, admin.password)));
    if let (Some(gateway), Some(coupon)) = (&state.gateway, coupon) {
        lines.push(String::new());
        lines.push(style("sign up, log in, claim:").bold().to_string());
        lines.extend(curl_lines(gateway, coupon, &trace_id()));
    }
    lines.join("\n")
}

/// Each runs as it stands; the claim is traced, whatever the sampling.
fn curl_lines(gateway: &str, coupon: u64, trace: &str) -> [String; 3] {
    let json = "-H 'content-type: application/json'";
    let who = r#"{"email":"ada@firstcome.example","password":"first come, first served"}"#;
    [
        format!("curl -s {gateway}/users/sign-up {json} -d '{who}'"),
        format!(
            r#"TOKEN=$(curl -s {gateway}/users/login {json} -d '{who}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')"#
        ),
        format!(
            r#"curl -s {gateway}/coupon-issues {json} -H "authorization: Bearer $TOKEN" -H 'traceparent: 00-{trace}-00f067aa0ba902b7-01' -d '{{"couponId":{coupon}}}'"#
        ),
    ]
}

fn trace_id() -> String {
    let bytes = crate::secrets::random::<16>().unwrap_or([1; 16]);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In a line: what the run is doing, and who is not ready though the others are.
pub(crate) fn summary(state: &State) -> String {
    let servers = state.servers.iter().map(|it| (&it.name, &it.process));
    let services = state.services.iter().map(|it| (&it.instance, &it.process));
    let missing = servers.chain(services).filter(|(_, process)| !process.ready);
    let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
    match state.phase {
        Phase::Starting => "starting".to_owned(),
        Phase::Ready if missing.is_empty() => "ready".to_owned(),
        Phase::Ready => format!("not ready: {}; see `cargo xtask logs {}`", missing.join(", "), missing[0]),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Stopped => "stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::state;

    #[test]
    fn who_is_not_ready_is_named() {
        let mut state = state();
        assert_eq!(summary(&state), "ready");
        state.services[0].process.ready = false;
        assert_eq!(summary(&state), "not ready: gateway; see `cargo xtask logs gateway`");
    }

    #[test]
    fn lines_can_be_copied() {
        let [sign_up, login, claim] = curl_lines("http://127.0.0.1:8080", 7, "ab");
        assert!(sign_up.starts_with("curl -s http://127.0.0.1:8080/users/sign-up -H"));
        assert!(login.starts_with("TOKEN=$(curl"));
        assert!(claim.ends_with(r#"-d '{"couponId":7}'"#));
    }
}
