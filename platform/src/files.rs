//! Open files: every connection is one, and a shell's usual limit of 1,024 would end a service long before its
//! settings do. Invariant: connections never take the files that the rest of the process needs to answer them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of all files, what clients' connections may take, in fourths: requests on their way need connections of their own.
const FOURTHS: u64 = 3;

/// Raises this process's limit to what it may be. Where that is refused, the limit is what it was.
pub(crate) fn raise_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// As many connections as are wanted, or as the limit of open files allows.
pub(crate) fn connections(wanted: usize) -> usize {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let most = usize::try_from(limit / 4 * FOURTHS).unwrap_or(usize::MAX);
    if most < wanted {
        tracing::warn!(
            limit,
            wanted,
            connections = most,
            "the limit of open files allows fewer connections than wanted"
        );
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        raise_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
        assert_eq!(connections(1), 1);
        assert!(connections(usize::MAX) as u64 <= hard / 4 * FOURTHS);
    }
}
