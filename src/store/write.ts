import { randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as z from 'zod'
import { errorCode } from './errno.ts'
import { NestvmError } from './error.ts'
import { processIdentity } from './process.ts'

/**
 * Readers see the old content or the new, never a part. Creates the directory if need be.
 * Throws `NO_SPACE` when the disk or the quota is full.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const temporary = temporaryName(path)
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await writeDurably(temporary, data, mode)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw explainWriteError(error, path)
  }
}

/** Undefined when absent; throws `BAD_RECORD` when it is not what the schema says. */
export async function readJson<S extends z.ZodType>(path: string, schema: S): Promise<z.output<S> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
  const result = schema.safeParse(parseJson(text))
  if (result.success) return result.data
  throw new NestvmError('BAD_RECORD', `${path} is damaged: ${z.prettifyError(result.error)}`, {
    hint: `remove ${path}`,
    details: { path },
    cause: result.error,
  })
}

/** Removes a file or a directory. It gets another name first, so that a kill never leaves half of it under this one. */
export async function removeTree(path: string): Promise<void> {
  const doomed = temporaryName(path)
  try {
    await rename(path, doomed)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return
    throw error
  }
  await removeForced(doomed)
}

/** Removes what killed writers and removers left in a directory. */
export async function removeLeftovers(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => [])
  for (const name of names) {
    const pid = /^\..+\.(\d+)\.[0-9a-f]{8}\.tmp$/.exec(name)?.[1]
    if (pid !== undefined && processIdentity(Number(pid)) === undefined) await removeForced(join(dir, name))
  }
}

/** A name in the same directory, hence the same file system, that `removeLeftovers` knows. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`)
}

/** For whoever writes by other means: says `NO_SPACE` in nestvm's words and leaves other errors as they are. */
export function explainWriteError(error: unknown, path: string): unknown {
  const code = errorCode(error)
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error
  return new NestvmError('NO_SPACE', `no space left to write ${path}`, {
    hint: 'nestvm prune',
    details: { path },
    cause: error,
  })
}

/** Whether what a program says, in no language of its user's, is that the disk or the quota is full. */
export function saysFull(message: string): boolean {
  return /No space left|quota exceeded/.test(message)
}

async function writeDurably(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  await using file = await open(path, 'wx', mode)
  await file.writeFile(data)
  await file.sync()
}

/** What is not JSON is undefined, which no record's schema accepts. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Image layers hold directories that even their owner may not write to; only root can remove from those. */
async function removeForced(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true })
  } catch (error) {
    if (errorCode(error) !== 'EACCES') throw error
    await makeWritable(path)
    await rm(path, { recursive: true, force: true })
  }
}

async function makeWritable(dir: string): Promise<void> {
  await chmod(dir, 0o700)
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) await makeWritable(join(dir, entry.name))
  }
}
