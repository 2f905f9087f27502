/** One entry of an archive. Directories and device nodes need no data; a hard link is never made. */
export interface CpioEntry {
  /** Relative to the root, without a leading slash. */
  path: string
  /** Permission bits only, for example 0o755; the type follows from the rest. */
  mode: number
  content:
    | { kind: 'file'; data: Uint8Array }
    | { kind: 'directory' }
    | { kind: 'symlink'; target: string }
    | { kind: 'device'; device: 'character' | 'block'; major: number; minor: number }
}

/**
 * An archive in the format of an initramfs, "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
 * Owner root, time 0, sorted by path, numbered in that order, with the directories above each entry added:
 * the same entries always give the same bytes, whoever runs it. Archives may be joined end to end.
 */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const sorted = withParents(entries).sort((a, b) => (a.path < b.path ? -1 : 1))
  return Buffer.concat([...sorted.flatMap(record), ...trailer()])
}

export function file(path: string, data: Uint8Array | string, mode = 0o644): CpioEntry {
  return { path, mode, content: { kind: 'file', data: typeof data === 'string' ? Buffer.from(data) : data } }
}

export function directory(path: string, mode = 0o755): CpioEntry {
  return { path, mode, content: { kind: 'directory' } }
}

export function symlink(path: string, target: string): CpioEntry {
  return { path, mode: 0o777, content: { kind: 'symlink', target } }
}

export function characterDevice(path: string, major: number, minor: number, mode = 0o600): CpioEntry {
  return { path, mode, content: { kind: 'device', device: 'character', major, minor } }
}

/** The kernel makes no directories by itself, and makes what it reads first first. */
function withParents(entries: readonly CpioEntry[]): CpioEntry[] {
  const byPath = new Map<string, CpioEntry>()
  for (const entry of entries) {
    if (byPath.has(entry.path)) throw new Error(`${entry.path} is in the archive twice`)
    byPath.set(entry.path, entry)
  }
  for (const { path } of entries) {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const parent = path.slice(0, end)
      if (!byPath.has(parent)) byPath.set(parent, directory(parent))
    }
  }
  return [...byPath.values()]
}

const typeBits = { file: 0o100000, directory: 0o040000, symlink: 0o120000, character: 0o020000, block: 0o060000 }

function record(entry: CpioEntry, index: number): Buffer[] {
  const { content } = entry
  const device = content.kind === 'device' ? content : { major: 0, minor: 0 }
  const type = typeBits[content.kind === 'device' ? content.device : content.kind]
  const data = dataOf(content)
  const links = content.kind === 'directory' ? 2 : 1
  const head = header(entry.path, index + 1, type | entry.mode, links, data.length, device)
  return [head, Buffer.from(data.buffer, data.byteOffset, data.length), padding(data.length)]
}

function dataOf(content: CpioEntry['content']): Uint8Array {
  if (content.kind === 'file') return content.data
  return Buffer.from(content.kind === 'symlink' ? content.target : '')
}

function trailer(): Buffer[] {
  return [header('TRAILER!!!', 0, 0, 1, 0, { major: 0, minor: 0 })]
}

function header(
  path: string,
  inode: number,
  mode: number,
  links: number,
  size: number,
  device: { major: number; minor: number },
): Buffer {
  const name = Buffer.from(`${path}\0`)
  // ino, mode, uid, gid, nlink, mtime, filesize, dev major, minor, rdev major, minor, namesize, check
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.major, device.minor, name.length, 0]
  const text = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
  return Buffer.concat([Buffer.from(text), name, padding(text.length + name.length)])
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
