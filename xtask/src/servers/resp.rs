//! As much of the Redis protocol as it takes to ask a server how it is.

use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    List(Vec<Value>),
    Nil,
}

impl Value {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The value after `key` in a flat list of keys and values.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        let Self::List(items) = self else { return None };
        items.chunks_exact(2).find(|pair| pair[0].text() == key).map(|pair| pair[1].text())
    }
}

pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(port: u16, password: Option<&str>) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).context("connect")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut connection = Self { reader: BufReader::new(stream) };
        if let Some(password) = password {
            connection.ask(&["AUTH", password])?;
        }
        Ok(connection)
    }

    pub(crate) fn ask(&mut self, words: &[&str]) -> Result<Value> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.reader.get_mut().write_all(request.as_bytes())?;
        read(&mut self.reader)
    }
}

fn read(reader: &mut impl std::io::BufRead) -> Result<Value> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(kind) = line.chars().next() else { bail!("the connection was closed") };
    let rest = &line[1..];
    Ok(match kind {
        '+' => Value::Text(rest.to_owned()),
        '-' => bail!("{rest}"),
        ':' => Value::Integer(rest.parse()?),
        '$' => match usize::try_from(rest.parse::<i64>()?) {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Value::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(_) => Value::Nil,
        },
        '*' => match usize::try_from(rest.parse::<i64>()?) {
            Ok(length) => Value::List((0..length).map(|_| read(reader)).collect::<Result<_>>()?),
            Err(_) => Value::Nil,
        },
        other => bail!("not the Redis protocol: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let mut bytes: &[u8] = b"*4\r\n$5\r\nflags\r\n$6\r\nmaster\r\n:7\r\n$-1\r\n";
        let value = read(&mut bytes).unwrap();
        assert_eq!(value.field("flags"), Some("master"));
        assert_eq!(read(&mut &b"-LOADING x\r\n"[..]).unwrap_err().to_string(), "LOADING x");
        assert!(read(&mut &b""[..]).is_err());
    }
}
