import { gzipSync } from 'node:zlib'
import { padding } from '../image/tar/entry.ts'
import { endOfArchive, formatHeader } from '../image/tar/writer.ts'

/** A .tar.gz of text files, below one directory. */
export function archive(directory: string, files: ReadonlyMap<string, string>, made: Date): Buffer {
  const mtime = Math.floor(made.getTime() / 1000)
  const parts = [...files].flatMap(([path, text]) => {
    const data = Buffer.from(text)
    const header = formatHeader({
      ...{
        type: 'file',
        path: `${directory}/${path}`,
        linkPath: '',
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime,
        size: data.length,
      },
      ...{ device: { major: 0, minor: 0 }, xattrs: new Map() },
    })
    return [header, data, Buffer.alloc(padding(data.length))]
  })
  return gzipSync(Buffer.concat([...parts, endOfArchive]))
}
