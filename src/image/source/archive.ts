import { mkdir, open } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { cachePaths } from '../../store/paths.ts'
import { explainWriteError, removeLeftovers, removeTree, temporaryName } from '../../store/write.ts'
import { openLayer } from '../layer/compression.ts'
import { imageLimits, tooLarge } from '../limits.ts'
import { readTar } from '../tar/reader.ts'
import type { Files } from './directory.ts'
import type { SourceRequest } from './source.ts'

/**
 * The files of an archive (`podman save`, `docker save`), unpacked into the cache until disposed. Each has a number for
 * its name there, so that no name in the archive leads anywhere. Throws `IMAGE_NOT_FOUND`, `IMAGE_BAD_LAYER`,
 * `IMAGE_TOO_LARGE`, `NO_SPACE`.
 */
export async function openArchive(path: string, request: SourceRequest): Promise<Files & AsyncDisposable> {
  const { downloads } = cachePaths()
  const dir = temporaryName(join(downloads, 'archive'))
  await removeLeftovers(downloads)
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const names = await unpack(path, dir, request)
    return {
      path,
      find: async (name) => follow(names, posix.normalize(name)),
      [Symbol.asyncDispose]: () => removeTree(dir),
    }
  } catch (error) {
    await removeTree(dir)
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'EISDIR') {
      throw new NestvmError('IMAGE_NOT_FOUND', `there is no archive ${path}`, { details: { path }, cause: error })
    }
    throw explainWriteError(error, dirname(dir))
  }
}

type Names = Map<string, { file: string } | { link: string }>

async function unpack(path: string, dir: string, request: SourceRequest): Promise<Names> {
  const { unpackedBytes, entries } = imageLimits()
  const names: Names = new Map()
  let bytes = 0
  for await (const entry of readTar(openLayer(path, request))) {
    bytes += entry.size
    if (bytes > unpackedBytes)
      throw tooLarge(`${path} holds more than ${unpackedBytes / 2 ** 30} GiB`, 'NESTVM_IMAGE_MAX_GIB')
    if (names.size >= entries) throw tooLarge(`${path} holds more than ${entries} files`, 'NESTVM_IMAGE_MAX_FILES')
    const name = posix.normalize(entry.path)
    if (entry.type === 'symlink') names.set(name, { link: posix.join(posix.dirname(name), entry.linkPath) })
    if (entry.type === 'link') names.set(name, { link: posix.normalize(entry.linkPath) })
    if (entry.type !== 'file') continue
    const file = join(dir, String(names.size))
    await using handle = await open(file, 'wx', 0o600)
    for await (const chunk of entry.data()) {
      await handle.writeFile(chunk)
      request.progress?.({ phase: 'check', label: path, bytesDone: bytes })
    }
    names.set(name, { file })
  }
  return names
}

/** Old archives of docker have links where layers are the same. */
function follow(names: Names, name: string): string | undefined {
  let found = names.get(name)
  for (let links = 0; found && 'link' in found && links < 10; links++) found = names.get(found.link)
  return found && 'file' in found ? found.file : undefined
}
