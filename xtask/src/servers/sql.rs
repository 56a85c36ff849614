//! MariaDB (the default) or MySQL. The user of the services is made by the server itself, from its init file, before
//! it takes the first connection; no client program is needed.

pub(crate) mod replication;

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Program;
use super::debian::{Release, library_path, unpack};
use super::fetch::{Fetch, advice, on_path, version_in};
use crate::interrupt::Interrupt;
use crate::state::{Folder, write_atomically};
use crate::supervisor::{Kind, Spec};

pub(crate) const USER: &str = "firstcome";
/// In an unpacked package.
const MARIADBD: &str = "usr/sbin/mariadbd";
const MYSQLD: &str = "usr/sbin/mysqld";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    MariaDb,
    MySql,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }

    /// The engine that made the data of this folder; a folder never changes its engine.
    pub(crate) fn of_folder(folder: &Folder, wanted: Self) -> Result<Self> {
        let other = match wanted {
            Self::MariaDb => Self::MySql,
            Self::MySql => Self::MariaDb,
        };
        if folder.data().join(other.name()).is_dir() {
            bail!(
                "{} holds data of {}: run `cargo xtask reset` first, or give another folder by --dir",
                folder.root().display(),
                other.name()
            );
        }
        Ok(wanted)
    }
}

/// One server with data of its own.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Of its process and its data folder.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) port: u16,
    /// The port that others are told.
    pub(crate) told: u16,
    /// Its id among those that follow each other; none of a single server.
    pub(crate) replicated: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Installed {
    engine: Engine,
    server: Program,
    /// Root of an unpacked package; `None` for one of the host.
    root: Option<PathBuf>,
}

pub(crate) fn obtain(fetch: &Fetch, engine: Engine) -> Result<Installed> {
    match engine {
        Engine::MariaDb => mariadb(fetch),
        Engine::MySql => mysql(fetch),
    }
}

fn mariadb(fetch: &Fetch) -> Result<Installed> {
    let engine = Engine::MariaDb;
    if let (Some(path), Some(_)) = (on_path("mariadbd"), on_path("mariadb-install-db")) {
        let version = fetch.interrupt.run(std::process::Command::new(&path).arg("--version"))?;
        if version_in(&version) >= Some((10, 11)) {
            return Ok(Installed { engine, server: Program::found(path), root: None });
        }
    }
    let gotten = fetch.folder("mariadb", "MariaDB", |folder, step| {
        unpack(fetch, Release::Host, &["mariadb-server-core", "mariadb-client-core"], folder, step)?;
        let server = unpacked_mariadb(folder, MARIADBD);
        let version = fetch.interrupt.run(server.command().args(["--no-defaults", "--version"]))?;
        match version_in(&version.replace("mariadbd", "")) {
            // The path in the answer may hold digits; what matters is that it runs.
            Some(_) => Ok(()),
            None => bail!("no version in: {}", version.trim()),
        }
    });
    let root = advice(
        gotten,
        "MariaDB",
        "Debian, Ubuntu: apt install mariadb-server-core mariadb-client-core; 10.11 or newer",
    )?;
    Ok(Installed { engine, server: unpacked_mariadb(&root, MARIADBD), root: Some(root) })
}

fn unpacked_mariadb(root: &Path, program: &str) -> Program {
    let environment = vec![("LD_LIBRARY_PATH".to_owned(), library_path(root))];
    Program { path: root.join(program), leading: Vec::new(), environment }
}

fn mysql(fetch: &Fetch) -> Result<Installed> {
    let engine = Engine::MySql;
    if let Some(path) = on_path("mysqld") {
        let version = fetch.interrupt.run(std::process::Command::new(&path).arg("--version"))?;
        if !version.contains("MariaDB")
            && version_in(version.split("Ver").nth(1).unwrap_or_default()) >= Some((8, 0))
        {
            return Ok(Installed { engine, server: Program::found(path), root: None });
        }
    }
    let gotten = fetch.folder("mysql-with-client", "MySQL", |folder, step| {
        // Debian carries MySQL in unstable only; Ubuntu in its releases.
        let packages: [(Release, [&str; 2]); 3] = [
            (
                Release::Other { debian: Some("sid"), ubuntu: None },
                ["mysql-server-core", "mysql-client-core"],
            ),
            (Release::Host, ["mysql-server-core-8.4", "mysql-client-core-8.4"]),
            (Release::Host, ["mysql-server-core-8.0", "mysql-client-core-8.0"]),
        ];
        let mut last = None;
        for (release, packages) in packages {
            match unpack(fetch, release, &packages, folder, step) {
                Ok(()) => {
                    if matches!(release, Release::Other { .. }) {
                        fs::write(folder.join("own-libc"), "")?;
                    }
                    fetch.interrupt.run(
                        unpacked_mysql(folder, MYSQLD)?.command().args(["--no-defaults", "--version"]),
                    )?;
                    return Ok(());
                }
                Err(error) => last = last.or(Some(error)),
            }
            fetch.interrupt.check()?;
        }
        Err(last.context("no package")?)
    });
    let root = advice(gotten, "MySQL", "a mysqld 8.0 or newer on PATH, or leave out --mysql")?;
    Ok(Installed { engine, server: unpacked_mysql(&root, MYSQLD)?, root: Some(root) })
}

/// A package of another release runs on that release's C library, through its own loader.
fn unpacked_mysql(root: &Path, program: &str) -> Result<Program> {
    let program = root.join(program);
    if !root.join("own-libc").exists() {
        let environment = vec![("LD_LIBRARY_PATH".to_owned(), library_path(root))];
        return Ok(Program { path: program, leading: Vec::new(), environment });
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let loader = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"]
        .iter()
        .flat_map(|name| {
            [format!("usr/lib/{triple}"), format!("lib/{triple}"), "usr/lib64".to_owned(), "lib64".to_owned()]
                .map(|folder| root.join(folder).join(name))
        })
        .find(|path| path.is_file())
        .context("the package brings no loader")?;
    let leading = vec!["--library-path".to_owned(), library_path(root), program.display().to_string()];
    Ok(Program { path: loader, leading, environment: Vec::new() })
}

impl Installed {
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// Makes the data folder when there is none, in one step.
    pub(crate) fn prepare(&self, folder: &Folder, server: &str, interrupt: &Interrupt) -> Result<()> {
        let data = folder.data().join(server);
        if !data.is_dir() {
            let partial = folder.data().join(format!("{server}.partial"));
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            self.initialise(&partial, interrupt).context("make the data folder")?;
            fs::rename(&partial, &data)?;
        }
        Ok(())
    }

    fn initialise(&self, data: &Path, interrupt: &Interrupt) -> Result<()> {
        fs::create_dir_all(data)?;
        match self.engine {
            Engine::MariaDb => {
                let script = match &self.root {
                    Some(root) => root.join("usr/bin/mariadb-install-db"),
                    None => on_path("mariadb-install-db").context("no mariadb-install-db")?,
                };
                let mut command = std::process::Command::new(script);
                command.envs(self.server.environment.iter().cloned()).arg("--no-defaults");
                if let Some(root) = &self.root {
                    command.arg(format!("--basedir={}", root.join("usr").display()));
                }
                command.args(at(data));
                // By force: the host need not know its own name.
                command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--force"]);
                interrupt.run(command.args(as_root()))?;
            }
            Engine::MySql => {
                let mut command = self.server.command();
                command.arg("--no-defaults").args(self.folders()).arg("--initialize-insecure");
                interrupt.run(command.args(at(data)).args(as_root()))?;
            }
        }
        Ok(())
    }

    /// Where an unpacked server finds its own files.
    fn folders(&self) -> Vec<String> {
        let Some(root) = &self.root else { return Vec::new() };
        let at = |path: &str| root.join(path).display().to_string();
        match self.engine {
            Engine::MariaDb => vec![
                format!("--basedir={}", at("usr")),
                format!("--lc-messages-dir={}", at("usr/share/mysql")),
                format!("--character-sets-dir={}", at("usr/share/mysql/charsets")),
            ],
            Engine::MySql => vec![
                format!("--basedir={}", at("usr")),
                format!("--lc-messages-dir={}", at("usr/share/mysql")),
                format!("--character-sets-dir={}", at("usr/share/mysql/charsets")),
                format!("--plugin-dir={}", at("usr/lib/mysql/plugin")),
            ],
        }
    }

    pub(crate) fn spec(&self, folder: &Folder, server: &Server) -> Spec {
        let Server { name, port, told, replicated } = server.clone();
        let data = folder.data().join(&name);
        let mut arguments = vec!["--no-defaults".to_owned()];
        arguments.extend(self.folders());
        arguments.extend(at(&data));
        arguments.extend([
            format!("--port={port}"),
            format!("--init-file={}", init_file(folder, &name).display()),
        ]);
        // A relative socket lies in the data folder, however deep that is.
        let shared = ["--bind-address=127.0.0.1", "--socket=mysqld.sock", "--skip-name-resolve"];
        arguments.extend(shared.map(str::to_owned));
        let shared =
            ["--character-set-server=utf8mb4", "--max-connections=500", "--default-time-zone=+00:00"];
        arguments.extend(shared.map(str::to_owned));
        if self.engine == Engine::MySql {
            let own = ["--secure-file-priv=", "--mysqlx=OFF", "--pid-file=mysqld.pid"];
            arguments.extend(own.map(str::to_owned));
        }
        arguments.extend(replication::arguments(self.engine, replicated));
        arguments.extend(as_root());
        Spec {
            name,
            group: self.engine.name().to_owned(),
            kind: Kind::Server,
            address: Some(format!("127.0.0.1:{told}")),
            program: self.server.path.clone(),
            arguments: self.server.arguments(arguments),
            environment: self.server.environment.clone(),
            working_folder: data,
            before_start: None,
            ready: Box::new(move |_| handshake(port).map(|()| None)),
            first_pause: Duration::from_millis(500),
            patience: Duration::from_secs(90),
        }
    }
}

/// Where a server's data lie, its temporary tables among them: of what lies in a folder that it shares with others, it
/// removes theirs, too, when it starts.
fn at(data: &Path) -> [String; 2] {
    ["datadir", "tmpdir"].map(|what| format!("--{what}={}", data.display()))
}

/// Both servers refuse to run as root unless told to.
fn as_root() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(u32::MAX);
    (uid == 0).then(|| "--user=root".to_owned())
}

/// Has the server execute these, too, at each start from now on.
pub(crate) fn at_start(folder: &Folder, server: &str, password: &str, statements: &[String]) -> Result<()> {
    let all = init_sql(password) + &statements.iter().map(|it| format!("{it}\n")).collect::<String>();
    write_atomically(&init_file(folder, server), all.as_bytes())
}

fn init_file(folder: &Folder, server: &str) -> PathBuf {
    folder.secret(&format!("{server}.sql"))
}

/// Run at each start. One statement a line: MySQL's reader of init files is line by line.
fn init_sql(password: &str) -> String {
    let user = format!("'{USER}'@'127.0.0.1'");
    [
        // Each server does this by itself.
        "SET SESSION sql_log_bin = 0;".to_owned(),
        format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}';"),
        format!("ALTER USER {user} IDENTIFIED BY '{password}';"),
        format!("GRANT ALL PRIVILEGES ON `firstcome\\_%`.* TO {user};"),
        format!("GRANT ALL PRIVILEGES ON `test\\_%`.* TO {user};"),
        format!("ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY '{password}';"),
        format!("ALTER USER IF EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '{password}';"),
        "DROP USER IF EXISTS ''@'localhost';".to_owned(),
        String::new(),
    ]
    .join("\n")
}

/// The server speaks first: a packet whose payload begins with protocol version 10, or 255 and an error.
fn handshake(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut packet = [0; 5];
    stream.read_exact(&mut packet)?;
    match packet[4] {
        10 => Ok(()),
        255 => bail!("refuses connections"),
        other => bail!("not the MySQL protocol: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn greeting_or_refusal() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for first in [10, 255] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(&[1, 0, 0, 0, first]).unwrap();
            }
        });
        assert!(handshake(port).is_ok());
        assert_eq!(handshake(port).unwrap_err().to_string(), "refuses connections");
        server.join().unwrap();
        assert!(handshake(port).is_err());
    }

    #[test]
    fn one_statement_a_line() {
        assert!(init_sql("pw").lines().all(|line| line.ends_with(';')));
    }

    #[test]
    fn a_folder_keeps_its_engine() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        assert_eq!(Engine::of_folder(&folder, Engine::MySql).unwrap(), Engine::MySql);
        fs::create_dir_all(folder.data().join("mariadb")).unwrap();
        assert!(Engine::of_folder(&folder, Engine::MySql).is_err());
        assert_eq!(Engine::of_folder(&folder, Engine::MariaDb).unwrap(), Engine::MariaDb);
    }
}
