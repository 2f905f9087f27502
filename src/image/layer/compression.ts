import { createReadStream } from 'node:fs'
import { open, realpath } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip } from 'node:zlib'
import type { Tools } from '../../bundle/tools.ts'
import type { Machine } from '../../machine/machine.ts'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'

/** What layers are read with: Node 20 has no zstd, so the bundle's program is used. */
export interface Reading {
  machine: Machine
  tools: Tools
  signal?: AbortSignal
}

/**
 * The tar in a layer's file, unpacked on the way. The file's first bytes tell how: what media types say of gzip and
 * plain tars is often wrong, and docker-archive says nothing. Throws `IMAGE_BAD_LAYER`.
 */
export async function* openLayer(path: string, reading: Reading): AsyncGenerator<Buffer> {
  const compression = await compressionOf(path)
  try {
    if (compression === 'zstd') yield* fromZstd(await realpath(path), reading)
    else yield* fromFile(path, compression, reading.signal)
  } catch (error) {
    reading.signal?.throwIfAborted()
    if (!errorCode(error)?.startsWith('Z_')) throw error
    throw badLayer(error instanceof Error ? error.message : String(error), error)
  }
}

async function compressionOf(path: string): Promise<'gzip' | 'zstd' | 'none'> {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0)
  const start = buffer.subarray(0, bytesRead).toString('hex')
  if (start.startsWith('1f8b')) return 'gzip'
  // A frame, or one of those to be skipped, which zstd:chunked has.
  return start === '28b52ffd' || /^5.2a4d18$/.test(start) ? 'zstd' : 'none'
}

async function* fromFile(path: string, compression: 'gzip' | 'none', signal?: AbortSignal): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: 1 << 18, signal })
  // pipeline ends both when either fails or is no longer read; the error shows where it is read.
  const stream = compression === 'none' ? file : pipeline(file, createGunzip({ chunkSize: 1 << 18 }), () => {})
  for await (const chunk of stream) yield chunk
}

async function* fromZstd(path: string, { machine, tools, signal }: Reading): AsyncGenerator<Buffer> {
  const child = await machine.spawn([...tools.argv('zstd'), '-dcq', path], { noInput: true, signal })
  let messages = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    messages = `${messages}${text}`.slice(-2000)
  })
  try {
    for await (const chunk of child.stdout) yield chunk
    const exit = await child.exited
    signal?.throwIfAborted()
    if (exit.code !== 0) throw badLayer(messages.trim().split('\n').at(-1) ?? `zstd ended with ${exit.code}`)
  } finally {
    // Whoever reads may have had enough.
    child.kill('SIGKILL')
  }
}

function badLayer(what: string, cause?: unknown): NestvmError {
  return new NestvmError('IMAGE_BAD_LAYER', `a layer of the image cannot be unpacked: ${what}`, { cause })
}
