//! The filesystem interface over an open ext filesystem.

use std::time::Duration;

use disksmith_disk::Result;

use super::attributes::attributes_of;
use super::core::ROOT;
use super::dirent;
use super::features::{Compat, Incompat};
pub(super) use super::handle::Ext;
use super::xattr;
use crate::{
    Attributes, Changes, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek, Statistics,
    errors,
};

/// Large writes are split into operations of this many bytes.
const WRITE_STEP: usize = 4 << 20;

impl Filesystem for Ext {
    fn type_name(&self) -> &'static str {
        let core = self.read_lock();
        let shape = &core.shape;
        if shape.has_incompat(Incompat::EXTENTS) || shape.checksums {
            "ext4"
        } else if shape.has_compat(Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }

    fn label(&self) -> Vec<u8> {
        self.read_lock().sb.label()
    }

    fn uuid(&self) -> String {
        uuid::Uuid::from_bytes(self.read_lock().sb.uuid()).to_string()
    }

    fn root(&self) -> u64 {
        ROOT.into()
    }

    fn read_only(&self) -> bool {
        self.read_lock().read_only
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(self.read_lock().statistics())
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let core = self.read_lock();
        let directory = core.live_inode(directory)?;
        let found = core.find(&directory, name)?.ok_or_else(errors::not_found)?;
        attributes_of(&core, &core.live_inode(found.inode.into())?)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let core = self.read_lock();
        attributes_of(&core, &core.live_inode(inode)?)
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let core = self.read_lock();
        let directory = core.live_inode(directory)?;
        core.list(&directory, cookie, &mut |inode, kind, name, cookie| {
            visit(Entry {
                inode: inode.into(),
                kind: dirent::kind_of(kind),
                name: name.to_vec(),
                cookie,
            })
        })
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let core = self.read_lock();
        let inode = core.live_inode(inode)?;
        match inode.kind() {
            Some(FileKind::Regular) => core.read_content(&inode, offset, buffer),
            Some(FileKind::Directory) => Err(errors::is_a_directory()),
            _ => Err(errors::invalid()),
        }
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        let core = self.read_lock();
        core.link_target(&core.live_inode(inode)?)
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
        let (index, short) = xattr::split_name(name)?;
        let core = self.read_lock();
        let inode = core.live_inode(inode)?;
        let found = core
            .attributes_of(&inode)?
            .into_iter()
            .find(|attribute| attribute.index == index && attribute.name == short)
            .filter(|attribute| attribute.full_name().is_some());
        xattr::to_linux(index, found.ok_or_else(errors::no_data)?.value)
    }

    fn xattrs(&self, inode: u64) -> Result<Vec<Vec<u8>>> {
        let core = self.read_lock();
        let inode = core.live_inode(inode)?;
        let all = core.attributes_of(&inode)?;
        Ok(all.iter().filter_map(xattr::Attribute::full_name).collect())
    }

    fn seek(&self, inode: u64, offset: u64, what: Seek) -> Result<u64> {
        let core = self.read_lock();
        core.seek_content(&core.live_inode(inode)?, offset, what)
    }

    fn hold(&self, inode: u64) {
        if let Ok(number) = u32::try_from(inode) {
            *self.read_lock().held().entry(number).or_insert(0) += 1;
        }
    }

    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let Ok(number) = u32::try_from(inode) else { return Ok(()) };
        {
            let core = self.read_lock();
            let mut held = core.held();
            let Some(uses) = held.get_mut(&number) else { return Ok(()) };
            *uses = uses.saturating_sub(count);
            if *uses > 0 {
                return Ok(());
            }
            held.remove(&number);
        }
        let core = self.read_lock();
        if core.read_only || core.is_held(number) {
            return Ok(());
        }
        let inode = core.inode(number)?;
        let gone =
            inode.i_mode() != 0 && inode.i_links_count() == 0 && core.inode_is_used(number)?;
        drop(core);
        if gone { self.reap(number) } else { Ok(()) }
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        let _content = self.content(inode)?;
        let mut done = 0;
        while done < data.len() {
            let part = &data[done..data.len().min(done + WRITE_STEP)];
            self.change(|core| {
                let mut inode = core.live_inode(inode)?;
                if !inode.is_regular() {
                    return Err(errors::invalid());
                }
                let at = offset + done as u64;
                core.check_unsealed(&inode, at)?;
                core.write_content(&mut inode, at, part)?;
                let now = core.now();
                inode.set_modified(now);
                inode.set_changed(now);
                core.put_inode(&inode)
            })?;
            done += part.len();
        }
        Ok(())
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        if file.kind == FileKind::Symlink {
            return Err(errors::invalid());
        }
        self.change(|core| {
            let inode = core.create(directory, name, file)?;
            attributes_of(core, &inode)
        })
    }

    fn symlink(
        &self,
        directory: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Attributes> {
        self.change(|core| {
            let inode = core.create_link(directory, name, target, (uid, gid))?;
            attributes_of(core, &inode)
        })
    }

    fn link(&self, inode: u64, directory: u64, name: &[u8]) -> Result<Attributes> {
        self.change(|core| {
            let inode = core.add_name(inode, directory, name)?;
            attributes_of(core, &inode)
        })
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        match self.change(|core| core.remove_name(directory, name, false))? {
            Some(number) => self.reap(number),
            None => Ok(()),
        }
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        match self.change(|core| core.remove_name(directory, name, true))? {
            Some(number) => self.reap(number),
            None => Ok(()),
        }
    }

    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        match self.change(|core| core.rename(from, old, to, new, how))? {
            Some(number) => self.reap(number),
            None => Ok(()),
        }
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        let mut content = None;
        if let Some(size) = changes.size {
            content = Some(self.content(inode)?);
            let core = self.read_lock();
            let current = core.live_inode(inode)?;
            let large = !core.is_small(&current) && size < current.size();
            if current.is_regular() && large && !core.read_only {
                core.check_unsealed(&current, size)?;
                drop(core);
                self.cut(current.number, size)?;
                self.commit_cut(current.number)?;
            }
        }
        let done = self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            core.apply_changes(&mut inode, changes)?;
            core.put_inode(&inode)?;
            attributes_of(core, &inode)
        });
        drop(content);
        done
    }

    fn set_xattr(&self, inode: u64, name: &[u8], value: &[u8], exists: Option<bool>) -> Result<()> {
        let (index, short) = xattr::split_name(name)?;
        if index == xattr::INLINE_DATA.0 && short == xattr::INLINE_DATA.1 {
            return Err(errors::not_permitted());
        }
        let stored = xattr::to_disk(index, value)?;
        self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            if let Some(wanted) = exists {
                let all = core.attributes_of(&inode)?;
                let there = all.iter().any(|a| a.index == index && a.name == short);
                match (there, wanted) {
                    (true, false) => return Err(errors::exists()),
                    (false, true) => return Err(errors::no_data()),
                    _ => {}
                }
            }
            core.set_attribute(&mut inode, index, short, Some(&stored))?;
            inode.set_changed(core.now());
            core.put_inode(&inode)
        })
    }

    fn remove_xattr(&self, inode: u64, name: &[u8]) -> Result<()> {
        let (index, short) = xattr::split_name(name)?;
        self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            let all = core.attributes_of(&inode)?;
            if !all.iter().any(|a| a.index == index && a.name == short && a.full_name().is_some()) {
                return Err(errors::no_data());
            }
            core.set_attribute(&mut inode, index, short, None)?;
            inode.set_changed(core.now());
            core.put_inode(&inode)
        })
    }

    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        let _content = self.content(inode)?;
        self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            core.check_unsealed(&inode, offset)?;
            core.allocate_content(&mut inode, offset, length, how)?;
            let now = core.now();
            inode.set_modified(now);
            inode.set_changed(now);
            core.put_inode(&inode)
        })
    }

    fn sync(&self) -> Result<()> {
        if self.read_only() { Ok(()) } else { self.commit() }
    }

    fn wait_until_due(&self, most: Duration) {
        self.wait_for_due(most);
    }

    fn close(&self) -> Result<()> {
        self.shut_down()
    }
}
