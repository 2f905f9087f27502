import { setTimeout as sleep } from 'node:timers/promises'
import { type EngineFiles, engineFiles } from '../engine/qemu/argv.ts'
import { whyEnded } from '../engine/qemu/events.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import type { Launched } from './launch.ts'
import type { Place } from './place.ts'
import type { GuestRecord } from './record.ts'

/** What is waited for during a start, unless the engine ends before: then that is the reason. */
export async function unlessEnded<T>(wanted: Promise<T>, launched: Launched): Promise<T> {
  wanted.catch(() => {})
  const ended = engineEnd(launched, 'during the start')
  try {
    return await Promise.race([wanted, ended])
  } catch (error) {
    throw await reasonFor(error, [ended])
  }
}

/** Rejects with `GUEST_DIED` when a running guest's engine ends. */
export function death(
  context: Context,
  record: GuestRecord,
  place: Pick<Place, 'machine'>,
  launched: Launched,
): Promise<never> {
  const died = engineEnd(launched, 'while it ran').catch(async (error: unknown) => {
    const files = engineFiles(record.engineDir, record.socketDir)
    throw context.signal.aborted || context.isEnding(record) ? error : await explain(error, record.path, place, files)
  })
  died.catch(() => {})
  return died
}

export function engineEnd({ process }: Launched, when: string): Promise<never> {
  const end = process.exited.then(
    ({ code, signal }) => {
      throw died(`its engine ended ${when} (${code === null ? signal : `status ${code}`})`)
    },
    // Mostly because a guest around it died, which is what should be said.
    async (error: unknown) => {
      await sleep(graceMs, undefined, { ref: false })
      throw error
    },
  )
  end.catch(() => {})
  return end
}

const graceMs = 3000

/** What may be the first that is seen of a death. */
const signs = ['MACHINE_LOST', 'CONNECT_FAILED', 'ENGINE_GONE']

/**
 * A connection that breaks, or a program that cannot be reached, is mostly the first sign of a death around it: whatever
 * tells of one within a few seconds is the reason.
 */
export async function reasonFor(error: unknown, deaths: readonly Promise<never>[]): Promise<unknown> {
  if (!(error instanceof NestvmError && signs.includes(error.code))) return error
  const late = new Promise<never>((_, reject) => setTimeout(() => reject(error), graceMs))
  return Promise.race([...deaths, late]).catch((reason: unknown) => reason)
}

export function died(how: string): NestvmError {
  return new NestvmError('GUEST_DIED', how)
}

/** With why the engine ended and the end of the guest's console, where the guest or its engine is what failed. */
export async function explain(
  error: unknown,
  path: string,
  place: Pick<Place, 'machine'>,
  files: EngineFiles,
): Promise<unknown> {
  const codes = [...signs, 'GUEST_DIED', 'ENGINE_FAILED', 'API_ERROR', 'GUEST_TIMEOUT']
  if (!(error instanceof NestvmError && codes.includes(error.code))) return error
  const { said, reason } = await lastWords(place, files)
  const because = error.code === 'GUEST_DIED' && reason !== undefined ? `: ${reason}` : ''
  const console = said === '' ? '' : `; the end of its console:\n${said.replace(/^/gm, '  | ')}`
  return new NestvmError(error.code, `${path}: ${error.message}${because}${console}`, {
    details: { machine: path, reason, console: said },
    cause: error,
    exitStatus: error.exitStatus,
  })
}

/** Why the engine ended, as it says, and the end of what it and the guest's kernel said: the reason why, mostly. */
export async function lastWords(
  { machine }: Pick<Place, 'machine'>,
  { engineLog, kernelLog, events }: EngineFiles,
): Promise<{ said: string; reason: string | undefined }> {
  // In one go: a hypervisor that ends with its guest gives a few seconds for it.
  const script =
    'tail -c 3000 "$1" 2>/dev/null; echo "$4"; tail -c 1500 "$2" 2>/dev/null; tail -c 3000 "$3" 2>/dev/null'
  const argv = ['sh', '-c', script, 'sh', events, engineLog, kernelLog, separator]
  const result = await run(machine, argv, { timeoutMs: 20_000, allowFailure: true }).catch(() => undefined)
  const [told = '', ...said] = result?.stdout.replaceAll('\r', '').split(`${separator}\n`) ?? []
  return { said: said.join('').trim(), reason: whyEnded(told) }
}

const separator = '-- nestvm: what the engine and the kernel said --'
