import { createHash, randomUUID } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { errorCode } from './errno.ts'
import { NestvmError } from './error.ts'
import { isAlive, processIdentity, processIdentitySchema } from './process.ts'
import { explainWriteError, temporaryName } from './write.ts'

export interface LockOptions {
  timeoutMs: number
  signal?: AbortSignal
  /** Called once, when the lock is held by somebody else. */
  onWait?: (holder: { pid: number }) => void
}

/**
 * Runs `fn` while no other process, nor another caller in this one, holds the lock at `path`.
 * A holder that was killed does not hold it any longer. Not reentrant. Throws `LOCK_TIMEOUT`, or the signal's reason.
 *
 * The lock is a file that names its holder, created whole by link(). Its holder removes it; for a dead holder anyone
 * may, but only inside `exclusively`: the file cannot change between the look and the removal then, because
 * the dead do not remove and the living wait for the guard. Without that, of two waiters that saw the same dead
 * holder, the slower one would remove the new lock of the faster.
 */
export async function withLock<T>(path: string, fn: () => Promise<T>, options: LockOptions): Promise<T> {
  const token = randomUUID()
  await acquire(path, token, options)
  try {
    return await fn()
  } finally {
    // Not ours any more if somebody removed the directory meanwhile.
    if ((await readLock(path))?.token === token) await rm(path, { force: true })
  }
}

const lockSchema = processIdentitySchema.extend({ token: z.string() })

type Lock = z.infer<typeof lockSchema>

async function acquire(path: string, token: string, { timeoutMs, signal, onWait }: LockOptions): Promise<void> {
  const end = performance.now() + timeoutMs
  let announced = false
  while (true) {
    signal?.throwIfAborted()
    const lock = await readLock(path)
    if (lock === undefined) {
      if (await create(path, token)) return
    } else if (isStale(lock)) {
      await exclusively(path, () => removeStale(path))
    } else if (!announced) {
      announced = true
      onWait?.({ pid: lock.pid })
    }
    if (performance.now() >= end) throw timedOut(path, timeoutMs, lock?.pid)
    // Uneven, so that waiters do not keep step.
    await sleep(10 + Math.random() * 40)
  }
}

async function create(path: string, token: string): Promise<boolean> {
  const temporary = temporaryName(path)
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await writeFile(temporary, JSON.stringify({ ...processIdentity(process.pid), token }), { mode: 0o600 })
    await link(temporary, path)
    return true
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    throw explainWriteError(error, path)
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Undefined when there is none. */
async function readLock(path: string): Promise<Lock | undefined> {
  try {
    return lockSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    if (error instanceof SyntaxError || error instanceof z.ZodError) return cutShort
    throw error
  }
}

/** link() shows only whole locks, so a broken one was cut short by a crash of the system: its holder is gone. */
const cutShort: Lock = { pid: 1, startTime: 0, boot: '', token: '' }

function isStale(lock: Lock): boolean {
  return !isAlive(lock)
}

/** An absent lock is left alone: it may be created, outside the guard, between the look and the removal. */
async function removeStale(path: string): Promise<void> {
  const lock = await readLock(path)
  if (lock !== undefined && isStale(lock)) await rm(path, { force: true })
}

/**
 * Runs `fn` unless another process is doing so. The guard is an abstract unix socket (unix(7)):
 * only one process can have the name, and the kernel frees it however that process ends.
 */
async function exclusively(path: string, fn: () => Promise<void>): Promise<void> {
  const name = createHash('sha256').update(`${process.getuid?.()} ${path}`).digest('hex')
  const guard = await listen(`\0nestvm-lock-${name}`)
  if (guard === undefined) return
  try {
    await fn()
  } finally {
    await new Promise((resolve) => guard.close(resolve))
  }
}

function listen(name: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', (error) => (errorCode(error) === 'EADDRINUSE' ? resolve(undefined) : reject(error)))
    server.listen({ path: name }, () => resolve(server))
  })
}

function timedOut(path: string, timeoutMs: number, pid: number | undefined): NestvmError {
  const who = pid === undefined ? 'another process' : `process ${pid}`
  return new NestvmError('LOCK_TIMEOUT', `${who} has held the lock ${path} for more than ${timeoutMs / 1000} s`, {
    hint: 'wait for it to finish, or end it',
    details: { path, pid, timeoutMs },
  })
}
