//! What all rounds share: the running stack, its API, the operator's tool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::couponctl::Couponctl;
use crate::first_coupon::admin_token;
use crate::http::Client;
use crate::stack::Stack;
use crate::state::State;

pub(crate) struct Stage {
    pub(crate) stack: Arc<Stack>,
    pub(crate) couponctl: Couponctl,
    pub(crate) client: Client,
    pub(crate) gateway: String,
    /// Claims a second.
    pub(crate) rate: u64,
    /// Where each round has a folder.
    pub(crate) rounds: PathBuf,
    state: State,
}

impl Stage {
    pub(crate) fn new(stack: &Arc<Stack>, rate: u64) -> Result<Self> {
        let state = stack.state();
        Ok(Self {
            couponctl: Couponctl::new(&state, &stack.folder, &stack.interrupt)?,
            client: Client::new(Duration::from_secs(10)),
            gateway: state.gateway.clone().context("the stack has no gateway")?,
            rate,
            rounds: stack.folder.root().join("rounds"),
            stack: stack.clone(),
            state,
        })
    }

    pub(crate) fn commit(&self) -> String {
        self.state.commit.clone().unwrap_or_else(|| "unknown".to_owned())
    }

    pub(crate) fn admin_token(&self) -> Result<String> {
        admin_token(&self.client, &self.state)
    }
}
