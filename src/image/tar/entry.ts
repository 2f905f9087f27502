export type TarType = 'file' | 'link' | 'symlink' | 'character' | 'block' | 'directory' | 'fifo'

/**
 * One entry of a tar. Names and targets are byte strings: one character for each byte (latin1), since file names on
 * Linux have no encoding and have to come out as they went in.
 */
export interface TarEntry {
  type: TarType
  path: string
  /** Of a hard link, the path of an earlier entry; of a symbolic link, its text. */
  linkPath: string
  /** Permission bits and set-id bits: 12 bits. */
  mode: number
  uid: number
  gid: number
  /** Whole seconds since 1970; may be negative. */
  mtime: number
  /** Bytes of content, with the holes of a sparse file. 0 for all but files. */
  size: number
  device: { major: number; minor: number }
  /** Name with its namespace, `user.comment`, to value. */
  xattrs: ReadonlyMap<string, Buffer>
}

export const blockSize = 512

/** Bytes after so many, up to a whole block. */
export function padding(size: number): number {
  return (blockSize - (size % blockSize)) % blockSize
}
