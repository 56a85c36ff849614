//! placeholder replaced below
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Demo, Place};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

pub(crate) fn defaults(place: &Place) -> Demo {
    Demo { place: place.clone(), stock: 1_000, signups: 200, users: 15_000, ramp: "20s".to_owned() }
}

pub(crate) fn demo(_arguments: &Demo, _interrupt: &Interrupt, _progress: &Progress) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
