import type { TarEntry } from '../tar/entry.ts'
import { badLink, badPath, entryPath, hardLinkPath } from './path.ts'
import type { Inode, Name, Tree } from './tree.ts'
import { keptXattrs, marksOpaque, marksWhiteout } from './xattrs.ts'

const whiteoutPrefix = '.wh.'
const opaqueMarker = '.wh..wh..opq'
/** What AUFS kept for itself. */
const aufsPrefix = '.wh..wh.'

/**
 * Lays one entry of a layer over the tree, as the OCI image specification (layer.md) has it. Entries come in the order
 * of the tar, layers from the lowest. Throws `IMAGE_BAD_PATH` or `IMAGE_BAD_LINK`.
 *
 * Whiteouts of both kinds count: files with the specification's names, and those of overlayfs (a character device 0:0,
 * or attributes), which hand-made layers have and which the guest's overlayfs would otherwise take for its own.
 */
export function applyEntry(tree: Tree, entry: TarEntry, layer: number, ordinal: number): void {
  const path = entryPath(entry.path)
  const name = path.pop()
  if (path.some((part) => part.startsWith(aufsPrefix))) return
  const whiteout = name === undefined ? undefined : whiteoutOf(name, entry)
  if (name === undefined) applyRoot(tree, entry, layer, ordinal)
  else if (whiteout !== undefined) hide(tree, path, whiteout, layer)
  else if (!name.startsWith(aufsPrefix)) applyFile(tree, { path, name }, entry, layer, ordinal)
}

function applyFile(
  tree: Tree,
  { path, name }: { path: readonly string[]; name: string },
  entry: TarEntry,
  layer: number,
  ordinal: number,
): void {
  const siblings = tree.childrenOf(path, layer)
  if (entry.type === 'link') {
    const result = tree.link(siblings, name, hardLinkPath(entry.linkPath, entry.path), layer)
    if (result === 'absent') throw badLink(entry.path, entry.linkPath, 'is not there')
    if (result === 'directory') throw badLink(entry.path, entry.linkPath, 'is a directory')
    return
  }
  put(tree, siblings, name, toInode(entry, layer, ordinal), layer)
  if (entry.type === 'directory' && marksOpaque(entry)) hideLower(siblings.get(name)?.inode.children, layer)
}

function applyRoot(tree: Tree, entry: TarEntry, layer: number, ordinal: number): void {
  if (entry.type !== 'directory') throw badPath(entry.path, 'is that of the root, but it is no directory')
  tree.root.inode = { ...toInode(entry, layer, ordinal), children: tree.root.inode.children }
  if (marksOpaque(entry)) hideLower(tree.root.inode.children, layer)
}

/** A directory over a directory changes its attributes; all else takes the place of what was there. */
function put(tree: Tree, siblings: Map<string, Name>, name: string, inode: Inode, layer: number): void {
  const present = siblings.get(name)?.inode.children
  tree.set(siblings, name, { inode: inode.children && present ? { ...inode, children: present } : inode, layer })
}

/** The name that is to be hidden; all names for the opaque marker; undefined for what is no whiteout. */
function whiteoutOf(name: string, entry: TarEntry): string | typeof everything | undefined {
  if (name === opaqueMarker) return everything
  if (name.startsWith(aufsPrefix)) return undefined
  if (name.startsWith(whiteoutPrefix)) {
    const hidden = name.slice(whiteoutPrefix.length)
    if (hidden === '' || hidden === '.' || hidden === '..') throw badPath(entry.path, 'is a whiteout of no file')
    return hidden
  }
  const { major, minor } = entry.device
  const device = entry.type === 'character' && major === 0 && minor === 0
  return device || marksWhiteout(entry) ? name : undefined
}

const everything = Symbol('everything')

function hide(tree: Tree, path: readonly string[], name: string | typeof everything, layer: number): void {
  const children = tree.open(path)?.inode.children
  if (name === everything) hideLower(children, layer)
  else {
    const found = children?.get(name)
    if (found !== undefined && !keepsOwn(found, layer)) children?.delete(name)
  }
}

function hideLower(children: Map<string, Name> | undefined, layer: number): void {
  for (const [name, child] of children ?? []) if (!keepsOwn(child, layer)) children?.delete(name)
}

/** Removes below a name what lower layers have; whether anything of this layer is left, the name itself included. */
function keepsOwn(name: Name, layer: number): boolean {
  hideLower(name.inode.children, layer)
  return name.layer === layer || (name.inode.children?.size ?? 0) > 0
}

function toInode(entry: TarEntry, layer: number, ordinal: number): Inode {
  const { type, path, mode, uid, gid, mtime, size, device, linkPath } = entry
  if (type === 'link') throw new Error('a hard link has no inode of its own')
  if (uid < 0 || gid < 0 || uid > mostId || gid > mostId) throw badPath(path, 'belongs to an owner that cannot be')
  if (device.major > 0xfff || device.minor > 0xfffff) throw badPath(path, 'is that of a device that cannot be')
  if (type === 'symlink' && (linkPath === '' || linkPath.length > 4095 || linkPath.includes('\0'))) {
    throw badPath(path, 'is that of a symbolic link to what cannot be')
  }
  return {
    ...{ type, mode, uid, gid, device, layer, ordinal, size },
    linkPath: type === 'symlink' ? linkPath : '',
    // Squashfs counts seconds from 1970 in 32 bits.
    mtime: Math.min(Math.max(mtime, 0), 0xffff_ffff),
    xattrs: keptXattrs(entry.xattrs),
    children: type === 'directory' ? new Map() : undefined,
  }
}

/** The highest one stands for "no id" in Linux. */
const mostId = 0xffff_fffe
