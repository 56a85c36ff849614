//! Whose socket is at the other end of a loopback connection: by `/proc/net/tcp` its inode, by `/proc/PID/fd` the
//! process that holds that inode.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// `st` of an established connection.
const ESTABLISHED: u8 = 1;

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

/// Who of these processes, by name and pid, holds the sockets with these addresses.
pub(crate) fn owners(processes: &[(String, i32)], addresses: &[SocketAddr]) -> HashMap<SocketAddr, String> {
    let addresses: HashSet<SocketAddr> = addresses.iter().copied().collect();
    let mine = sockets(|socket| addresses.contains(&socket.local));
    let holders = holders(processes, &mine);
    mine.into_iter().filter_map(|socket| Some((socket.local, holders.get(&socket.inode)?.clone()))).collect()
}

/// The processes that are connected to one of these loopback ports, each with the port.
pub(crate) fn connected_to(processes: &[(String, i32)], ports: &[u16]) -> Vec<(String, u16)> {
    let there = sockets(|socket| socket.state == ESTABLISHED && ports.contains(&socket.remote.port()));
    let holders = holders(processes, &there);
    there
        .into_iter()
        .filter_map(|socket| Some((holders.get(&socket.inode)?.clone(), socket.remote.port())))
        .collect()
}

fn sockets(which: impl Fn(&Socket) -> bool) -> Vec<Socket> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().skip(1).filter_map(socket).filter(which).collect()
}

/// A line: number, local and remote address, state, queues, timers, retransmissions, user, time-out, inode.
fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some(Socket {
        local: address(fields.next()?)?,
        remote: address(fields.next()?)?,
        state: u8::from_str_radix(fields.next()?, 16).ok()?,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: the address as a number of this machine's byte order, the port as one.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::from((Ipv4Addr::from(address), u16::from_str_radix(port, 16).ok()?)))
}

fn holders(processes: &[(String, i32)], sockets: &[Socket]) -> HashMap<u64, String> {
    let inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let mut holders = HashMap::new();
    for (name, pid) in processes {
        if holders.len() == inodes.len() {
            break;
        }
        // A process that ends meanwhile holds nothing.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let inode = fs::read_link(entry.path()).ok().and_then(|link| inode(link.to_str()?));
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                holders.insert(inode, name.clone());
            }
        }
    }
    holders
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn lines_of_the_kernels_table() {
        let line = "  12: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1";
        let found = socket(line).unwrap();
        assert_eq!(found.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(found.remote, "127.0.0.1:54321".parse().unwrap());
        assert_eq!((found.state, found.inode), (ESTABLISHED, 4711));
        assert_eq!(socket("nonsense"), None);
    }

    #[test]
    fn the_process_at_the_other_end_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, address) = listener.accept().unwrap();
        assert_eq!(address, client.local_addr().unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        let processes = [("another".to_owned(), 1), ("this".to_owned(), own)];
        assert_eq!(owners(&processes, &[address]), HashMap::from([(address, "this".to_owned())]));
        assert_eq!(connected_to(&processes, &[port]), [("this".to_owned(), port)]);
        assert_eq!(connected_to(&processes, &[1]), []);
    }
}
