import type { TarEntry } from './tar/entry.ts'
import { padding } from './tar/entry.ts'
import { endOfArchive, formatHeader } from './tar/writer.ts'

/** For tests: an entry, of which only what matters has to be said. */
export type Example = Partial<Omit<TarEntry, 'size'>> & { path: string; data?: string | Buffer }

/** For tests: a layer's tar. */
export function exampleLayer(examples: readonly Example[]): Buffer {
  const blocks = examples.flatMap(({ data, ...example }) => {
    const content = Buffer.from(data ?? '')
    const header = formatHeader({ ...exampleEntry(example), size: content.length })
    return [header, content, Buffer.alloc(padding(content.length))]
  })
  return Buffer.concat([...blocks, endOfArchive])
}

export function exampleEntry(example: Omit<Example, 'data'>): TarEntry {
  const mode = example.type === 'directory' ? 0o755 : 0o644
  return {
    ...{ type: 'file', linkPath: '', mode, uid: 0, gid: 0, mtime: 1_700_000_000, size: 0 },
    ...{ device: { major: 0, minor: 0 }, xattrs: new Map() },
    ...example,
  }
}
