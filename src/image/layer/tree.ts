import { type Limits, tooLarge } from '../limits.ts'
import type { TarType } from '../tar/entry.ts'
import { badPath } from './path.ts'

/** A file of the merged image, whatever names it has. */
export interface Inode {
  readonly type: Exclude<TarType, 'link'>
  mode: number
  uid: number
  gid: number
  mtime: number
  xattrs: ReadonlyMap<string, Buffer>
  readonly linkPath: string
  readonly device: { major: number; minor: number }
  readonly size: number
  /** Which entry of which layer has the content, both counted from 0. */
  readonly layer: number
  readonly ordinal: number
  /** Of a directory. */
  readonly children: Map<string, Name> | undefined
}

/** A name in a directory. */
export interface Name {
  inode: Inode
  /** The last layer that has named it: whiteouts hide what lower layers have, not what their own has. */
  layer: number
}

/** The files of an image while layer after layer is laid over it. Holds names and attributes, no content. */
export class Tree {
  readonly root: Name = { inode: directory(0), layer: -1 }
  private made = 0

  constructor(private readonly limits: Limits) {}

  /** The name at a path, its symbolic links followed but for the last component; undefined when absent. */
  find(path: readonly string[]): Name | undefined {
    if (path.length === 0) return this.root
    const parent = this.walk(path.slice(0, -1))
    return parent?.inode.children?.get(path.at(-1) ?? '')
  }

  /** The same with symbolic links followed to the end, as opening a file does. */
  open(path: readonly string[]): Name | undefined {
    return this.walk(path)
  }

  /** The children of a directory, which is made with its parents if absent. */
  childrenOf(path: readonly string[], layer: number): Map<string, Name> {
    const found = this.walk(path, (siblings, name, present) => {
      if (present?.layer === layer) throw badPath(path.join('/'), 'needs a directory where the same layer has a file')
      return this.set(siblings, name, { inode: directory(layer), layer })
    })
    if (found?.inode.children === undefined) throw new Error(`no directory was made at ${path.join('/')}`)
    return found.inode.children
  }

  /** A second name for the file at `target`. */
  link(
    siblings: Map<string, Name>,
    name: string,
    target: readonly string[],
    layer: number,
  ): 'done' | 'absent' | 'directory' {
    const found = this.find(target)
    if (found === undefined) return 'absent'
    if (found.inode.type === 'directory') return 'directory'
    this.set(siblings, name, { inode: found.inode, layer })
    return 'done'
  }

  set(siblings: Map<string, Name>, name: string, value: Name): Name {
    // Those that were replaced count too, which errs on the safe side.
    if (++this.made > this.limits.entries) {
      throw tooLarge(`the image has more than ${this.limits.entries} files`, 'NESTVM_IMAGE_MAX_FILES')
    }
    siblings.set(name, value)
    return value
  }

  /**
   * Follows a path from the root, and symbolic links on it, always inside the tree: `/` is its root, above which `..`
   * does not lead. With `make` all of the path are directories: it gives one for what is not there or is none.
   */
  private walk(path: readonly string[], make?: MakeDirectory): Name | undefined {
    const way = [this.root]
    const todo = [...path].reverse()
    for (let links = 0; todo.length > 0; ) {
      const part = todo.pop() ?? ''
      const here = way.at(-1) ?? this.root
      if (part === '..') {
        if (way.length > 1) way.pop()
        continue
      }
      const siblings = here.inode.children
      if (siblings === undefined) return undefined
      let next = siblings.get(part)
      if (next?.inode.type === 'symlink') {
        if (++links > mostLinks) throw badPath(path.join('/'), 'leads through too many symbolic links')
        const { linkPath } = next.inode
        if (linkPath.startsWith('/')) way.length = 1
        todo.push(
          ...linkPath
            .split('/')
            .filter((name) => name !== '' && name !== '.')
            .reverse(),
        )
        continue
      }
      if (next?.inode.children === undefined && make) next = make(siblings, part, next)
      if (next === undefined) return undefined
      if (way.push(next) > mostDepth) throw badPath(path.join('/'), 'is too deep')
    }
    return way.at(-1)
  }
}

type MakeDirectory = (siblings: Map<string, Name>, name: string, present: Name | undefined) => Name

/** As in Linux. */
const mostLinks = 40
/** More than any path of Linux can name in one go; links make deeper trees possible, which walks would not survive. */
const mostDepth = 1024

/** What a directory is that no layer describes. */
function directory(layer: number): Inode {
  return {
    ...{ type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: new Map(), linkPath: '', size: 0 },
    ...{ device: { major: 0, minor: 0 }, layer, ordinal: -1, children: new Map() },
  }
}
