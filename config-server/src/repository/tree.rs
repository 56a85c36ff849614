//! Git's tree objects: `mode SP name NUL id`, again and again.

use std::collections::HashMap;

/// Regular files, executable or not. Links, folders and submodules are left out: a link would lead to a name that
/// nobody checked.
const FILE_MODES: [&[u8]; 3] = [b"100644", b"100755", b"100664"];

/// Name to object id of the regular files. `id_length` is in bytes. None if the bytes are no tree.
pub(super) fn files(mut data: &[u8], id_length: usize) -> Option<HashMap<String, String>> {
    let mut files = HashMap::new();
    while !data.is_empty() {
        let space = data.iter().position(|&byte| byte == b' ')?;
        let (mode, rest) = data.split_at(space);
        let end = rest.iter().position(|&byte| byte == 0)?;
        let name = &rest[1..end];
        let rest = &rest[end + 1..];
        let (id, rest) = rest.split_at_checked(id_length)?;
        data = rest;
        if let (true, Ok(name)) = (FILE_MODES.contains(&mode), std::str::from_utf8(name)) {
            files.insert(name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_listed() {
        let mut tree = Vec::new();
        for (mode, name) in
            [("100644", "a.yml"), ("120000", "link.yml"), ("40000", "folder"), ("100755", "b.yml")]
        {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(&[0xab; 20]);
        }
        let files = files(&tree, 20).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files["a.yml"], "ab".repeat(20));
        assert!(files.contains_key("b.yml"));
    }

    #[test]
    fn a_cut_tree_is_none() {
        assert_eq!(files(b"100644 a\0short", 20), None);
        assert_eq!(files(b"100644", 20), None);
    }
}
