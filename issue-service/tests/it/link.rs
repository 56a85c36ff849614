//! A link to a server that can be cut, or made to swallow everything, in both directions, without an error.

use platform::lifecycle::Lifecycle;
use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Link {
    pub(crate) port: u16,
    hangs: watch::Sender<bool>,
    cuts: watch::Sender<()>,
}

impl Link {
    pub(crate) async fn to(host: &str, port: u16, lifecycle: &Lifecycle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = (host.to_owned(), port);
        let port = listener.local_addr().unwrap().port();
        let hangs = watch::Sender::new(false);
        let (cuts, cut) = watch::channel(());
        let (hanging, links) = (hangs.subscribe(), lifecycle.clone());
        lifecycle.spawn_detached(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut hanging, mut cut) = (server.clone(), hanging.clone(), cut.clone());
                cut.mark_unchanged();
                links.spawn_detached(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = io::copy_bidirectional(&mut client, &mut server) => return,
                        _ = cut.changed() => return,
                        _ = hanging.wait_for(|hangs| *hangs) => {}
                    }
                    // Both ends stay open, and nobody hears anything any more.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { port, hangs, cuts }
    }

    /// Ends every connection. New ones can be made.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    pub(crate) fn hang(&self) {
        self.hangs.send_replace(true);
    }
}
