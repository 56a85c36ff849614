//! What all rounds share: the running stack, its API, the operator's tool.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// By child, how often it has ended by itself, as far as was told.
    ended: Mutex<BTreeMap<String, u32>>,
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
            ended: Mutex::default(),
        })
    }

    pub(crate) fn commit(&self) -> String {
        self.state.commit.clone().unwrap_or_else(|| "unknown".to_owned())
    }

    /// Processes that have ended since this was last asked though nobody ended them: a supervisor heals what it must not
    /// hide.
    pub(crate) fn ended_alone(&self) -> Vec<String> {
        let mut told = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let children = self.stack.supervisor.children();
        let ended = children.iter().filter_map(|child| {
            let (name, status) = (&child.spec.name, child.status());
            let before = told.insert(name.clone(), status.ended_alone).unwrap_or(0);
            (status.ended_alone > before).then(|| format!("{name} {} by itself", status.last_alone))
        });
        ended.collect()
    }

    pub(crate) fn admin_token(&self) -> Result<String> {
        admin_token(&self.client, &self.state)
    }
}
