import type { TarType } from '../../src/image/tar/entry.ts'

/** A file of the image. All belong to root and are of 1970, and of modes there are only these. */
export interface ImageFile {
  path: string
  type: Extract<TarType, 'file' | 'directory' | 'symlink'>
  mode: number
  /** Of a symbolic link. */
  target?: string
  data?: Buffer
}

export function file(path: string, data: Buffer | string, executable = false): ImageFile {
  return { path, type: 'file', mode: executable ? 0o755 : 0o644, data: Buffer.from(data) }
}

export function directory(path: string, mode = 0o755): ImageFile {
  return { path, type: 'directory', mode }
}

export function symlink(path: string, target: string): ImageFile {
  return { path, type: 'symlink', mode: 0o777, target }
}
