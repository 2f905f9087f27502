import { NestvmError } from '../../store/error.ts'
import { padding, type TarEntry } from '../tar/entry.ts'
import { readTar } from '../tar/reader.ts'
import { endOfArchive, formatHeader } from '../tar/writer.ts'
import { openLayer, type Reading } from './compression.ts'
import type { LayerFile } from './scan.ts'
import type { Inode, Name, Tree } from './tree.ts'

/**
 * One tar of the whole tree, in the same order whenever it is made of the same layers: directories, what has no
 * content, then content in the order of the layers, each file with its further names right behind it. `onFile` is given
 * the content of the files that `keep` names.
 */
export async function* mergedTar(
  tree: Tree,
  layers: readonly LayerFile[],
  { keep, onFile, ...reading }: Reading & { keep: ReadonlySet<Inode>; onFile: (inode: Inode, data: Buffer) => void },
): AsyncGenerator<Buffer> {
  const { directories, files } = listTree(tree)
  for (const [path, inode] of directories) yield header(path, inode)
  for (const [inode, paths] of files) if (!hasContent(inode)) yield Buffer.concat(headers(inode, paths))
  for (const [index, { path }] of layers.entries()) {
    const wanted = new Map<number, [Inode, string[]]>()
    for (const [inode, paths] of files) {
      if (hasContent(inode) && inode.layer === index) wanted.set(inode.ordinal, [inode, paths])
    }
    if (wanted.size === 0) continue
    let ordinal = 0
    for await (const entry of readTar(openLayer(path, reading))) {
      const [inode, paths] = wanted.get(ordinal++) ?? []
      if (inode === undefined || paths === undefined) continue
      if (entry.type !== 'file' || entry.size !== inode.size) throw changed(path)
      const [first, ...links] = headers(inode, paths)
      if (first) yield first
      yield* keep.has(inode) ? kept(entry.data(), (data) => onFile(inode, data)) : entry.data()
      yield Buffer.concat([Buffer.alloc(padding(inode.size)), ...links])
      wanted.delete(ordinal - 1)
      if (wanted.size === 0) break
    }
    if (wanted.size > 0) throw changed(path)
  }
  yield endOfArchive
}

/** Bytes of content that the tar will have. */
export function contentSize(tree: Tree): number {
  return [...listTree(tree).files.keys()].reduce((sum, inode) => sum + inode.size, 0)
}

/** Directories before what is in them, without the root; every other file once, with all its names. */
function listTree(tree: Tree): { directories: [string, Inode][]; files: Map<Inode, string[]> } {
  const directories: [string, Inode][] = []
  const files = new Map<Inode, string[]>()
  const list = (children: ReadonlyMap<string, Name>, prefix: string) => {
    for (const name of [...children.keys()].sort()) {
      const inode = children.get(name)?.inode
      const path = `${prefix}${name}`
      if (inode?.children) {
        directories.push([path, inode])
        list(inode.children, `${path}/`)
      } else if (inode) {
        const paths = files.get(inode)
        if (paths) paths.push(path)
        else files.set(inode, [path])
      }
    }
  }
  list(tree.root.inode.children ?? new Map(), '')
  return { directories, files }
}

function hasContent(inode: Inode): boolean {
  return inode.type === 'file' && inode.size > 0
}

function headers(inode: Inode, [first = '', ...others]: readonly string[]): Buffer[] {
  const links = others.map((path) => header(path, { ...inode, size: 0, xattrs: new Map(), linkPath: first }, 'link'))
  return [header(first, inode), ...links]
}

function header(path: string, inode: Omit<Inode, 'children'>, type: TarEntry['type'] = inode.type): Buffer {
  return formatHeader({ ...inode, type, path })
}

async function* kept(data: AsyncIterable<Buffer>, onData: (data: Buffer) => void): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of data) {
    chunks.push(chunk)
    yield chunk
  }
  onData(Buffer.concat(chunks))
}

function changed(path: string): NestvmError {
  return new NestvmError('IMAGE_BAD_LAYER', `${path} changed while it was read`, { details: { path } })
}
