import { stat, statfs } from 'node:fs/promises'
import { errorCode } from '../store/errno.ts'
import { NestvmError } from '../store/error.ts'

/**
 * Bytes that a set-up was seen to take at its peak, with something to spare; `foreign`: of two architectures; `bochs`: of
 * that alone; `kernel`: to build one.
 */
const needs = {
  native: { bundle: 260 << 20, work: 520 << 20 },
  foreign: { bundle: 340 << 20, work: 1000 << 20 },
  bochs: { bundle: 160 << 20, work: 900 << 20 },
  kernel: { bundle: 40 << 20, work: 2400 << 20 },
}

/** Throws `NO_SPACE` before anything is downloaded. The directories exist; they may be on one file system. */
export async function checkSpace(kind: keyof typeof needs, dirs: { bundle: string; work: string }): Promise<void> {
  const { bundle, work } = needs[kind]
  const places = await Promise.all([placeOf(dirs.bundle, bundle), placeOf(dirs.work, work)])
  for (const { dir, device, free } of places) {
    const needed = places.filter((place) => place.device === device).reduce((sum, place) => sum + place.needed, 0)
    if (free < needed) throw noSpace(dir, `${megabytes(needed)} are needed, ${megabytes(free)} are free`)
  }
}

/** A signal that aborts when the disk of `dir` is full: apt does not stop by itself, but tries every package four times. */
export function whenFull(dir: string): Disposable & { signal: AbortSignal } {
  const controller = new AbortController()
  const look = async () => {
    const { bavail, bsize } = await statfs(dir)
    if (bavail * bsize < 1 << 20) controller.abort(noSpace(dir, 'the disk is full'))
  }
  const timer = setInterval(() => void look().catch(() => {}), 1000)
  return { signal: controller.signal, [Symbol.dispose]: () => clearInterval(timer) }
}

/** Every program says it in its own words. */
export function explainFullDisk(error: unknown): unknown {
  const code = errorCode(error)
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') return noSpace(undefined, code, error)
  if (!(error instanceof NestvmError) || error.code !== 'COMMAND_FAILED') return error
  const output = JSON.stringify(error.details)
  return fullDisk.test(output) ? noSpace(undefined, error.message, error) : error
}

const fullDisk = /No space left on device|out of space|Disk quota exceeded|File too large|File size limit/i

async function placeOf(dir: string, needed: number) {
  const { bavail, bsize } = await statfs(dir)
  return { dir, needed, device: (await stat(dir)).dev, free: bavail * bsize }
}

function noSpace(dir: string | undefined, what: string, cause?: unknown): NestvmError {
  return new NestvmError('NO_SPACE', `no space left for the bundle${dir ? ` in ${dir}` : ''}: ${what}`, {
    hint: 'nestvm prune, or set XDG_CACHE_HOME and XDG_DATA_HOME to a disk with more room',
    details: { path: dir },
    cause,
  })
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / (1 << 20))} MiB`
}
