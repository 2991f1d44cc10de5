//! What a traced program opened, and whether it was its own.

use std::path::Path;

/// The system calls that open or name files, or reach out of the machine.
pub(super) const CALLS: &str = "open,openat,openat2,creat,truncate,rename,renameat,renameat2,\
    unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,socket,execve";
/// Where every program reads from.
const SYSTEM: &[&str] = &["/usr/", "/lib/", "/lib64/", "/etc/", "/proc/", "/sys/", "/dev/urandom"];

/// What a command may touch.
pub(super) struct Own<'a> {
    /// The folder it runs in.
    pub(super) folder: &'a Path,
    /// May be read, never written: where the link `m` leads.
    pub(super) mutant: &'a Path,
    /// Names in the folder that may be written and made.
    pub(super) written: &'a [&'a str],
}

impl Own<'_> {
    /// The traced calls of one thread (`strace -ff -y`) that reach for something else.
    pub(super) fn strange<'t>(&self, trace: &'t str) -> Vec<&'t str> {
        trace.lines().filter(|line| !self.may(line)).collect()
    }

    fn may(&self, line: &str) -> bool {
        let Some((call, rest)) = line.split_once('(') else {
            // How a thread ended, and signals.
            return line.starts_with("+++") || line.starts_with("---");
        };
        match call {
            // A thread that was outside of any call when all ended.
            "???" => true,
            // The first is the program itself; no other can follow under that name.
            "execve" => rest.split('"').nth(1).is_some_and(|name| name.ends_with("/qemu-img")),
            // What could not be made whole is taken away again.
            "unlink" | "unlinkat" => {
                rest.split('"').nth(1).is_some_and(|name| self.written.contains(&name))
            }
            "open" | "openat" | "openat2" | "creat" => self.may_open(rest),
            _ => false,
        }
    }

    fn may_open(&self, rest: &str) -> bool {
        let asked = rest.split('"').nth(1).unwrap_or_default();
        let opened = rest
            .rsplit_once(") = ")
            .and_then(|(_, result)| result.split_once('<'))
            .and_then(|(_, path)| path.strip_suffix('>'));
        let reads = !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|f| rest.contains(f));
        let Some(opened) = opened else {
            // To look for a file that an image names is to reach for it as well.
            let name = asked == "m" || self.written.contains(&asked);
            return name || SYSTEM.iter().any(|place| asked.starts_with(place));
        };
        let name = Path::new(opened).strip_prefix(self.folder).ok().and_then(Path::to_str);
        match reads {
            true => {
                Path::new(opened) == self.mutant
                    || name.is_some_and(|name| name == "c" || self.written.contains(&name))
                    || SYSTEM.iter().any(|place| opened.starts_with(place))
            }
            false => name.is_some_and(|name| self.written.contains(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mutant_its_copy_and_the_system_are_its_own() {
        let own =
            Own { folder: Path::new("/run"), mutant: Path::new("/mutants/7"), written: &["c"] };
        let fine = r#"execve("/tools/qemu-img", ["qemu-img", "check", "c"], 0x7f /* 3 vars */) = 0
openat(AT_FDCWD</run>, "/lib/libc.so.6", O_RDONLY|O_CLOEXEC) = 3</usr/lib/libc.so.6>
openat(AT_FDCWD</run>, "m", O_RDONLY|O_CLOEXEC) = 3</mutants/7>
openat(AT_FDCWD</run>, "c", O_RDWR|O_CLOEXEC) = 3</run/c>
openat(AT_FDCWD</run>, "/sys/fs/cgroup/cpu.max", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)
unlink("c") = 0
+++ exited with 0 +++"#;
        assert!(own.strange(fine).is_empty());
        for line in [
            r#"openat(AT_FDCWD</run>, "m", O_RDWR|O_CLOEXEC) = 3</mutants/7>"#,
            r#"openat(AT_FDCWD</run>, "out", O_RDWR|O_CREAT, 0666) = 3</run/out>"#,
            r#"openat(AT_FDCWD</run>, "base", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)"#,
            r#"openat(AT_FDCWD</run>, "../8", O_RDONLY|O_CLOEXEC) = 3</mutants/8>"#,
            r#"openat(AT_FDCWD</run>, "/etc/passwd", O_RDWR|O_CLOEXEC) = 3</etc/passwd>"#,
            r#"socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3"#,
            r#"unlink("m") = 0"#,
            r#"execve("/bin/sh", ["sh"], 0x7f /* 3 vars */) = 0"#,
        ] {
            assert_eq!(own.strange(line), [line]);
        }
    }
}
