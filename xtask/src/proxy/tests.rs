use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

/// For what has to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what must not come.
const A_WHILE: Duration = Duration::from_millis(100);
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A server behind a proxy, and who its clients are.
struct Scene {
    proxies: Proxies,
    port: u16,
    server: TcpListener,
    names: Arc<Mutex<HashMap<SocketAddr, String>>>,
}

impl Scene {
    fn new() -> Self {
        let (port, free) = crate::ports::free(None).unwrap();
        drop(free);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let behind = server.local_addr().unwrap().port();
        let names = Arc::<Mutex<HashMap<SocketAddr, String>>>::default();
        let known = names.clone();
        let owners: Owners = Arc::new(move |addresses| {
            let known = known.lock().unwrap();
            known
                .iter()
                .filter(|(at, _)| addresses.contains(at))
                .map(|(at, name)| (*at, name.clone()))
                .collect()
        });
        let place = Place { name: "server".to_owned(), port, behind };
        Self { proxies: Proxies::start(&[place], &owners).unwrap(), port, server, names }
    }

    fn proxy(&self) -> &Arc<Proxy> {
        self.proxies.of("server").unwrap()
    }

    fn impose(&self, way: Way, effect: Effect) -> Imposed {
        self.proxy().impose(Source::Everybody, way, effect)
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn named(&self, name: &str) -> TcpStream {
        // Nobody can ask before the name is there.
        let mut names = self.names.lock().unwrap();
        let client = self.client();
        names.insert(client.local_addr().unwrap(), name.to_owned());
        client
    }

    /// Both ends of what comes through.
    fn link(&self) -> (TcpStream, TcpStream) {
        let client = self.client();
        let (server, _) = self.server.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server)
    }
}

fn passes(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"hello").unwrap();
    arrives(&mut to);
}

fn arrives(to: &mut &TcpStream) {
    let mut text = [0; 5];
    to.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

fn nothing_arrives(mut at: &TcpStream) {
    at.set_read_timeout(Some(A_WHILE)).unwrap();
    assert_eq!(at.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    at.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn is_reset(mut at: &TcpStream) {
    assert_eq!(at.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_is_said_comes_through_and_so_does_the_end() {
    let scene = Scene::new();
    let (mut client, mut server) = scene.link();
    passes(&client, &server);
    passes(&server, &client);
    let much = vec![7; 1 << 20];
    let written = much.clone();
    let writing = std::thread::spawn(move || {
        client.write_all(&written).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client
    });
    let mut read = Vec::new();
    server.read_to_end(&mut read).unwrap();
    assert!(read == much);
    // Only one direction has ended.
    let client = writing.join().unwrap();
    passes(&server, &client);
    drop(server);
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    assert_eq!(scene.proxy().broken(), 0);
}

#[test]
fn a_cut_resets_both_ends_and_refuses_new_links() {
    let scene = Scene::new();
    let (client, server) = scene.link();
    passes(&client, &server);
    let cut = scene.impose(Way::Both, Effect::Cut);
    is_reset(&client);
    is_reset(&server);
    is_reset(&scene.client());
    drop(cut);
    let (client, server) = scene.link();
    passes(&client, &server);
    passes(&server, &client);
    assert_eq!(scene.proxy().broken(), 2);
}

#[test]
fn a_black_hole_swallows_one_direction_until_it_is_lifted() {
    let scene = Scene::new();
    let (client, server) = scene.link();
    for (way, from, to) in [(Way::ToServer, &client, &server), (Way::FromServer, &server, &client)] {
        passes(from, to);
        let hole = scene.impose(way, Effect::BlackHole);
        let mut swallowed = from;
        swallowed.write_all(b"hello").unwrap();
        nothing_arrives(to);
        passes(to, from);
        drop(hole);
        arrives(&mut &*to);
    }
    assert_eq!(scene.proxy().broken(), 0);
}

#[test]
fn the_end_of_one_side_is_no_news_beyond_a_black_hole() {
    let scene = Scene::new();
    let (client, server) = scene.link();
    passes(&client, &server);
    let hole = scene.impose(Way::Both, Effect::BlackHole);
    drop(client);
    nothing_arrives(&server);
    // Nor does a new link get to the server.
    let late = scene.client();
    scene.server.set_nonblocking(true).unwrap();
    std::thread::sleep(A_WHILE);
    assert_eq!(scene.server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    scene.server.set_nonblocking(false).unwrap();
    drop(hole);
    assert_eq!((&server).read(&mut [0]).unwrap(), 0);
    let (server, _) = scene.server.accept().unwrap();
    passes(&late, &server);
}

#[test]
fn a_delay_holds_one_direction_back() {
    let scene = Scene::new();
    let (client, server) = scene.link();
    for (way, from, to) in [(Way::ToServer, &client, &server), (Way::FromServer, &server, &client)] {
        let delay = scene.impose(way, Effect::Delay(Duration::from_millis(50)));
        let begun = Instant::now();
        passes(from, to);
        assert!(begun.elapsed() >= Duration::from_millis(50), "{way:?}: {:?}", begun.elapsed());
        drop(delay);
        let delay = scene.impose(way, Effect::Delay(FOR_EVER));
        let mut slow = from;
        slow.write_all(b"hello").unwrap();
        nothing_arrives(to);
        passes(to, from);
        drop(delay);
        // What was under way comes first.
        arrives(&mut &*to);
        passes(from, to);
    }
}

#[test]
fn a_rule_can_be_for_some_only() {
    let scene = Scene::new();
    let early = scene.named("replica");
    let (early_server, _) = scene.server.accept().unwrap();
    early_server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (other, other_server) = scene.link();
    let these = Source::These(vec!["replica".to_owned()]);
    let hole = scene.proxy().impose(these.clone(), Way::Both, Effect::BlackHole);
    (&early).write_all(b"hello").unwrap();
    nothing_arrives(&early_server);
    passes(&other, &other_server);
    let cut = scene.proxy().impose(these, Way::Both, Effect::Cut);
    is_reset(&early);
    // Who calls later is known as well.
    is_reset(&scene.named("replica"));
    passes(&other, &other_server);
    drop((hole, cut));
    let late = scene.named("replica");
    let (late_server, _) = scene.server.accept().unwrap();
    passes(&late, &late_server);
}

#[test]
fn a_server_that_is_not_there_resets_its_clients() {
    let scene = Scene::new();
    let behind = scene.server.local_addr().unwrap().port();
    let Scene { proxies, port, server, .. } = scene;
    drop(server);
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    is_reset(&client);
    assert_eq!(proxies.of("server").unwrap().broken(), 1);
    let server = TcpListener::bind(("127.0.0.1", behind)).unwrap();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, _) = server.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    passes(&client, &server);
}

#[test]
fn another_server_is_put_behind_it() {
    let scene = Scene::new();
    let (client, server) = scene.link();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_ne!(scene.proxy().behind(), port);
    // Who calls into a black hole gets to whoever is there when it is lifted.
    let hole = scene.impose(Way::Both, Effect::BlackHole);
    let late = scene.client();
    scene.proxy().lead_to(port);
    drop(hole);
    let (late_server, _) = other.accept().unwrap();
    late_server.set_read_timeout(Some(PATIENCE)).unwrap();
    passes(&late, &late_server);
    passes(&client, &server);
    assert_eq!(scene.proxy().behind(), port);
}
