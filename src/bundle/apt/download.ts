import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { whenFull } from '../space.ts'
import { apt } from './command.ts'
import type { DebianPackage } from './plan.ts'
import type { AptState } from './state.ts'

/** Gets the packages into `state.archives`, going on with what is there, and checks each against the signed lists. */
export async function download(
  state: AptState,
  packages: readonly DebianPackage[],
  { onBytes, signal }: { onBytes: (done: number) => void; signal?: AbortSignal },
): Promise<void> {
  onBytes(0)
  const total = packages.reduce((sum, { size }) => sum + size, 0)
  const absent = await incomplete(state, packages)
  if (absent.length === 0) return
  const missing = absent.reduce((sum, { size }) => sum + size, 0)
  const onPercent = (percent: number) => onBytes(total - missing + Math.round((missing * percent) / 100))
  const names = absent.map(({ name, version }) => `${name}=${version}`)
  const argv = ['apt-get', 'download', '-qq', '-o', 'APT::Status-Fd=1', ...names]
  using full = whenFull(state.archives)
  const stop = signal ? AbortSignal.any([signal, full.signal]) : full.signal
  const options = { config: state.config, cwd: state.archives, onPercent, signal: stop, timeoutMs: 60 * 60_000 }
  await apt(state.machine, argv, options)

  const [broken] = await incomplete(state, absent)
  if (broken === undefined) return
  throw new NestvmError('DOWNLOAD_CORRUPT', `${broken.file} is not what the signed package lists say`, {
    hint: 'run `nestvm setup` again',
    details: { file: broken.file, sha256: broken.sha256 },
  })
}

/** apt takes a file of the right size for a whole one, so we look inside and remove what is wrong. */
async function incomplete(state: AptState, packages: readonly DebianPackage[]): Promise<DebianPackage[]> {
  const missing: DebianPackage[] = []
  for (const entry of packages) {
    const path = join(state.archives, entry.file)
    const found = await digestAndSize(path)
    if (found?.sha256 === entry.sha256) continue
    if (found !== undefined && found.size >= entry.size) await rm(path)
    missing.push(entry)
  }
  return missing
}

async function digestAndSize(path: string): Promise<{ sha256: string; size: number } | undefined> {
  const hash = createHash('sha256')
  let size = 0
  try {
    await pipeline(createReadStream(path), async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        hash.update(chunk)
        size += chunk.length
      }
    })
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
  return { sha256: hash.digest('hex'), size }
}
