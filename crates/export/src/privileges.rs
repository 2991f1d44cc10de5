//! Set-user-ID and set-group-ID bits, which a change of content, length or owner takes away. The
//! kernel leaves that to us (`FUSE_HANDLE_KILLPRIV_V2`), and in return does not ask for a file's
//! capabilities before every write.

use disksmith_filesystems::{Attributes, Changes, FileKind};

const SET_USER: u16 = 0o4000;
const SET_GROUP: u16 = 0o2000;
const GROUP_EXECUTES: u16 = 0o0010;

/// The mode that `mode` becomes. Without the right to execute, the group's bit is no privilege.
pub(crate) fn drop_from(mode: u16) -> u16 {
    match mode & GROUP_EXECUTES {
        0 => mode & !SET_USER,
        _ => mode & !(SET_USER | SET_GROUP),
    }
}

/// The mode to set together with `changes`, if they take privileges away. `root`: who asks keeps
/// them when he only cuts a file.
pub(crate) fn drop_with(changes: &Changes, found: &Attributes, root: bool) -> Option<u16> {
    let owner = changes.uid.is_some() || changes.gid.is_some();
    if found.kind == FileKind::Directory || !(owner || changes.size.is_some() && !root) {
        return None;
    }
    let mode = changes.mode.unwrap_or(found.mode);
    Some(drop_from(mode)).filter(|dropped| *dropped != mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_go_where_linux_lets_them_go() {
        assert_eq!(drop_from(0o6755), 0o755);
        assert_eq!(drop_from(0o6745), 0o2745);
        assert_eq!(drop_from(0o1644), 0o1644);
    }
}
