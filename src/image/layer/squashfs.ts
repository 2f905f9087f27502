import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import type { Reading } from './compression.ts'
import type { Inode } from './tree.ts'

/**
 * To be raised when other bytes come out of the same layers: it is part of the key of every image.
 * lz4 since emulated CPUs read it, at half of what zstd costs them (bundle/guest/layer.ts). Of 317 MB of programs and
 * Python it leaves 170 MB in 1.5 s; with -Xhc 139 MB, but in 40 s; zstd 123 MB in 1.4 s. A block is what is read at
 * least, and lz4 gains little by blocks over 128 KiB.
 */
export const builder = {
  revision: 1,
  options: ['-comp', 'lz4', '-b', '128K', '-no-exports', '-reproducible', '-mkfs-time', '0'],
} as const

/** Makes a squashfs of a tar, without root: owners and devices are only written down. Throws `NO_SPACE`. */
export async function writeSquashfs(
  path: string,
  tar: AsyncIterable<Buffer>,
  root: Inode,
  { machine, tools, signal }: Reading,
): Promise<void> {
  // The tar format has no sure way to describe the root itself. 256 MiB hold the blocks under way.
  const owner = ['-root-mode', root.mode.toString(8), '-root-uid', String(root.uid), '-root-gid', String(root.gid)]
  const options = [...builder.options, ...owner, '-root-time', String(root.mtime), '-mem', '256M']
  const quiet = ['-noappend', '-no-progress', '-quiet']
  // mksquashfs refuses its options for times where the caller's environment has this variable.
  const argv = [
    ...['env', '-u', 'SOURCE_DATE_EPOCH'],
    ...tools.argv('mksquashfs'),
    '-',
    path,
    '-tar',
    ...options,
    ...quiet,
  ]
  const stop = new AbortController()
  const abort = () => stop.abort(signal?.reason)
  signal?.addEventListener('abort', abort)
  try {
    signal?.throwIfAborted()
    const child = await machine.spawn(argv, { signal: stop.signal })
    child.stdout.resume()
    const messages = text(child.stderr)
    const written = pipeline(Readable.from(tar), child.stdin).catch((error: unknown) => {
      // Without its end the program would take the tar for a whole one.
      stop.abort(error)
      return error
    })
    const [exit, problem] = await Promise.all([child.exited, written])
    if (exit.code === 0 && problem === undefined) return
    signal?.throwIfAborted()
    throw explain(await messages, problem)
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

/** A program that gives up closes its input, so what it says comes before what writing to it says. */
function explain(messages: string, problem: unknown): unknown {
  if (problem !== undefined && !closedInput.test(errorCode(problem) ?? '')) return problem
  const said = messages
    .trim()
    .split('\n')
    .filter((line) => line !== '')
  const line = said.find((text) => /error|space|failed/i.test(text)) ?? said.at(-1)
  if (/No space left|out of space|quota exceeded/i.test(messages)) {
    return new NestvmError('NO_SPACE', `no space left for the image: ${line}`, {
      hint: 'nestvm prune, or set XDG_DATA_HOME to a directory on a disk with more room',
    })
  }
  return new NestvmError('IMAGE_BUILD_FAILED', `mksquashfs failed: ${line ?? 'it says nothing'}`, {
    details: { output: messages.slice(-2000) },
    cause: problem,
  })
}

const closedInput = /^(EPIPE|ECONNRESET|ERR_STREAM_PREMATURE_CLOSE)$/
