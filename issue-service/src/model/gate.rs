//! A process of the model: everything that runs in it stands still while it is frozen (SIGSTOP) and never goes on once
//! it was killed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    killed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    pub(super) fn freeze(&self) {
        self.0.lock().unwrap().frozen = true;
    }

    pub(super) fn thaw(&self) {
        self.0.lock().unwrap().frozen = false;
        self.wake();
    }

    pub(super) fn kill(&self) {
        self.0.lock().unwrap().killed = true;
        self.wake();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.0.lock().unwrap().killed
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut self.0.lock().unwrap().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A future of this process.
    pub(super) fn within<F: Future>(&self, future: F) -> Within<F> {
        Within { gate: self.clone(), future: Some(Box::pin(future)) }
    }

    #[expect(clippy::disallowed_methods, reason = "the model's own runtime, where no lifecycle is needed")]
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        tokio::spawn(self.within(future))
    }
}

pub(super) struct Within<F> {
    gate: Gate,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let mut state = this.gate.0.lock().unwrap();
        if state.killed || state.frozen {
            state.waiting.push(context.waker().clone());
            let killed = state.killed;
            drop(state); // what ends now may look at the gate
            if killed {
                this.future = None;
            }
            return Poll::Pending;
        }
        drop(state);
        match &mut this.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}
