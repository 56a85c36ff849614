//! A link to a server that can be made to swallow everything, in both directions, without an error.

use platform::lifecycle::Lifecycle;
use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Link {
    pub(crate) port: u16,
    hangs: watch::Sender<bool>,
}

impl Link {
    pub(crate) async fn to(host: &str, port: u16, lifecycle: &Lifecycle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = (host.to_owned(), port);
        let port = listener.local_addr().unwrap().port();
        let hangs = watch::Sender::new(false);
        let (hanging, links) = (hangs.subscribe(), lifecycle.clone());
        lifecycle.spawn_detached(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut hanging) = (server.clone(), hanging.clone());
                links.spawn_detached(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = io::copy_bidirectional(&mut client, &mut server) => return,
                        _ = hanging.wait_for(|hangs| *hangs) => {}
                    }
                    // Both ends stay open, and nobody hears anything any more.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { port, hangs }
    }

    pub(crate) fn hang(&self) {
        self.hangs.send_replace(true);
    }
}
