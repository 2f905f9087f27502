import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'

/** Named files, of a directory or an archive. */
export interface Files {
  /** For messages. */
  readonly path: string
  /** The file with a name; undefined when there is none. The caller has seen to it that the name leads nowhere else. */
  find(name: string): Promise<string | undefined>
}

export function openDirectory(dir: string): Files {
  const find = async (name: string) => {
    const path = join(dir, name)
    try {
      return (await stat(path)).isFile() ? path : undefined
    } catch (error) {
      if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined
      throw error
    }
  }
  return { path: dir, find }
}

/** Throws `IMAGE_NOT_FOUND`. */
export async function findOrFail(files: Files, name: string): Promise<string> {
  const found = await files.find(name)
  if (found !== undefined) return found
  throw new NestvmError('IMAGE_NOT_FOUND', `${files.path} is no image: it has no ${name}`, {
    details: { path: files.path, name },
  })
}
