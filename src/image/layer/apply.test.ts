import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Example, exampleEntry } from '../example-layer.ts'
import { applyEntry } from './apply.ts'
import { type Name, Tree } from './tree.ts'

type Layer = readonly (string | Example)[]

/** Lays layers over each other: a name with a slash at its end is a directory, any other a file. */
function merge(...layers: Layer[]): Tree {
  const tree = new Tree({ entries: 1000, unpackedBytes: 0 })
  for (const [index, layer] of layers.entries()) {
    for (const [ordinal, example] of layer.entries()) {
      const entry = typeof example === 'string' ? { path: example } : example
      applyEntry(
        tree,
        exampleEntry({ type: entry.path.endsWith('/') ? 'directory' : 'file', ...entry }),
        index,
        ordinal,
      )
    }
  }
  return tree
}

/** Path to `LAYER.ORDINAL`; directories end with a slash. */
function list(tree: Tree): Record<string, string> {
  const found: Record<string, string> = {}
  const visit = (children: ReadonlyMap<string, Name>, prefix: string) => {
    for (const [name, { inode }] of children) {
      found[`${prefix}${name}${inode.children ? '/' : ''}`] = inode.children ? '' : `${inode.layer}.${inode.ordinal}`
      if (inode.children) visit(inode.children, `${prefix}${name}/`)
    }
  }
  visit(tree.root.inode.children ?? new Map(), '')
  return found
}

const names = (tree: Tree) => Object.keys(list(tree)).sort()
const symlink = (path: string, linkPath: string): Example => ({ path, type: 'symlink', linkPath })
const link = (path: string, linkPath: string): Example => ({ path, type: 'link', linkPath })

test('an upper layer replaces files and keeps what else is in a directory', () => {
  assert.deepEqual(list(merge(['d/', 'd/a', 'd/b'], ['d/', 'd/a'])), { 'd/': '', 'd/a': '1.1', 'd/b': '0.2' })
})

test('a directory takes the place of a file, and the reverse', () => {
  assert.deepEqual(names(merge(['a', 'd/', 'd/x'], ['a/', 'a/y', 'd'])), ['a/', 'a/y', 'd'])
  assert.deepEqual(names(merge(['a'], ['a/b'])), ['a/', 'a/b'])
})

test('a whiteout hides what lower layers have, before or after what its own layer has', () => {
  assert.deepEqual(names(merge(['a', 'b'], ['.wh.a'])), ['b'])
  assert.deepEqual(list(merge(['a'], ['a', '.wh.a'])), { a: '1.0' })
  assert.deepEqual(list(merge(['d/', 'd/x'], ['d/', 'd/y', '.wh.d'])), { 'd/': '', 'd/y': '1.1' })
  assert.deepEqual(names(merge(['d/x'], ['.wh.d'], ['d/y'])), ['d/', 'd/y'])
})

test('an opaque directory hides all that lower layers have in it', () => {
  assert.deepEqual(names(merge(['d/x', 'd/e/y'], ['d/', 'd/z', 'd/.wh..wh..opq'])), ['d/', 'd/z'])
  assert.deepEqual(names(merge(['a', 'b/'], ['.wh..wh..opq', 'c'])), ['c'])
})

test("overlayfs's own whiteouts count, and its attributes do not get into the image", () => {
  const device: Example = { path: 'a', type: 'character', device: { major: 0, minor: 0 } }
  assert.deepEqual(names(merge(['a', 'b'], [device])), ['b'])
  const xattrs = new Map([
    ['trusted.overlay.opaque', Buffer.from('y')],
    ['user.x', Buffer.from('1')],
    ['system.posix_acl_access', Buffer.from('1')],
  ])
  const tree = merge(['d/x'], [{ path: 'd/', xattrs }])
  assert.deepEqual(names(tree), ['d/'])
  assert.deepEqual([...(tree.open(['d'])?.inode.xattrs.keys() ?? [])], ['user.x'])
})

test('what AUFS kept for itself is left out', () => {
  assert.deepEqual(names(merge(['.wh..wh.aufs', '.wh..wh.plnk/', '.wh..wh.plnk/1.2', 'a'])), ['a'])
})

test('a hard link shares the file of its layer or of a lower one, and keeps it when the name goes', () => {
  assert.deepEqual(list(merge(['a', link('b', 'a')], ['.wh.a'])), { b: '0.0' })
  assert.deepEqual(list(merge(['a'], [link('b', '/a')], ['a'])), { a: '2.0', b: '0.0' })
  assert.throws(() => merge([link('b', 'a')]), { code: 'IMAGE_BAD_LINK' })
  assert.throws(() => merge(['d/', link('b', 'd')]), { code: 'IMAGE_BAD_LINK' })
  assert.throws(() => merge(['a', link('b', '../../a')]), { code: 'IMAGE_BAD_LINK' })
})

test('symbolic links in a path are followed inside the root only', () => {
  const usr = ['usr/lib/', symlink('lib', 'usr/lib')]
  assert.deepEqual(names(merge(usr, ['lib/x'])), ['lib', 'usr/', 'usr/lib/', 'usr/lib/x'])
  assert.deepEqual(names(merge([symlink('out', '/../../etc')], ['out/x'])), ['etc/', 'etc/x', 'out'])
  assert.deepEqual(names(merge(usr, ['lib/x'], ['lib/.wh.x'])), ['lib', 'usr/', 'usr/lib/'])
  // An entry for a directory takes the link's place, as in podman and docker.
  assert.deepEqual(names(merge(usr, ['lib/', 'lib/x'])), ['lib/', 'lib/x', 'usr/', 'usr/lib/'])
  assert.throws(() => merge([symlink('a', 'b'), symlink('b', 'a'), 'a/x']), { code: 'IMAGE_BAD_PATH' })
})

test('parents that are missing are made, for root to write', () => {
  const { mode, uid } = merge(['a/b/c']).open(['a', 'b'])?.inode ?? {}
  assert.deepEqual({ mode, uid }, { mode: 0o755, uid: 0 })
})

test('./ and / in front of a name mean the root', () => {
  assert.deepEqual(names(merge(['./a', '/b', './/c/./d'])), ['a', 'b', 'c/', 'c/d'])
  assert.equal(merge([{ path: './', mode: 0o700 }]).root.inode.mode, 0o700)
})

test('names that lead upwards or cannot be are refused', () => {
  const wrong = [
    '../x',
    'a/../../x',
    'a/..',
    '/..',
    '',
    'a\0b',
    'x'.repeat(256),
    `${'d/'.repeat(2500)}x`,
    '.wh.',
    '.wh...',
    '.wh..',
    './',
  ]
  for (const path of wrong) assert.throws(() => merge([{ path, type: 'file' }]), { code: 'IMAGE_BAD_PATH' }, path)
  assert.throws(() => merge(['a', 'a/b']), { code: 'IMAGE_BAD_PATH' })
})

test('a tree that grows without bounds is refused', () => {
  assert.throws(() => merge(Array.from({ length: 1001 }, (_, index) => `f${index}`)), { code: 'IMAGE_TOO_LARGE' })
  const deeper = `${'d/'.repeat(400)}`
  const layer = [deeper, symlink('l', deeper), `l/${deeper}`, symlink('m', `l/${deeper}`), `m/${deeper}`]
  assert.throws(() => merge(layer), /too deep|more than/)
})
