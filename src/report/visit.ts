import type { Bundle } from '../bundle/bundle.ts'
import { engineFiles } from '../engine/qemu/argv.ts'
import type { Facts } from '../host/facts/schema.ts'
import type { Context } from '../stack/context.ts'
import { examineOne, guestPatient, hostPatient } from '../stack/doctor.ts'
import { thisHost } from '../stack/host.ts'
import { type InspectedLevel, inspectLevel } from '../stack/inspect.ts'
import { engineMachine } from '../stack/output.ts'
import { answerLimitMs } from '../stack/plan.ts'
import type { GuestRecord } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'
import { type Gathered, gather } from './gather.ts'
import { identity, levelItems, logItem } from './items.ts'
import type { Level } from './level.ts'

/** All that one level told, not redacted. */
export interface Visit extends Level {
  /** Why the machine itself told nothing. */
  problem?: string
  files: Gathered[]
  /** By what names it and its people go: `host NAME`, `user NAME`. */
  identity: string
  facts?: Facts
  /** KVM's own of this guest, from the machine that runs it, and the hypervisor that it sees in CPUID. */
  counters?: InspectedLevel['counters']
  signature?: string
}

interface VisitRequest {
  /** For each machine; by its level unless said. */
  limitMs?: number
  /** The one that is there: it is not got for this. */
  bundle: () => Promise<Bundle>
}

/** Asks all of a level at once; what does not answer in time is a problem, not an error. Throws the signal's reason. */
export async function visit(context: Context, level: Level, { limitMs, bundle }: VisitRequest): Promise<Visit> {
  const { record, machine: name } = level
  const timeoutMs = limitMs ?? answerLimitMs(Math.max(1, level.level))
  const limits = { timeoutMs, signal: context.signal }
  const within = <T>(work: () => Promise<T>) => answer(work(), name, limits)
  const patient = record ? guestPatient(context, record) : hostPatient(context, name)
  // On another host no program is put for this.
  const there = record || name === thisHost ? bundle : noBundle
  const machine = record && record.phase !== 'running' ? notRunning(record) : patient.connect()
  const [said, facts, seen, logs] = await Promise.allSettled([
    within(async () => gather(await machine, [...levelItems, identity], limits)),
    within(async () => examineOne(context, await machine, patient, { bundle: there })),
    record ? within(() => inspectLevel(context, record)) : undefined,
    record ? within(() => logsOf(context, record, limits)) : [],
  ])
  context.signal.throwIfAborted()
  const files = said.status === 'fulfilled' ? said.value : []
  return {
    ...level,
    problem: said.status === 'rejected' ? words(said.reason) : undefined,
    identity: files.find(({ file }) => file === identity.file)?.text ?? '',
    files: [
      ...files.filter(({ file }) => file !== identity.file),
      ...(logs.status === 'fulfilled'
        ? logs.value
        : [{ file: 'nestvm/kernel-log.txt', text: '', why: words(logs.reason) }]),
    ],
    facts: facts.status === 'fulfilled' ? facts.value : undefined,
    ...(seen.status === 'fulfilled' && { counters: seen.value?.counters, signature: seen.value?.seen?.hypervisor }),
  }
}

/** Rejects with `TIMEOUT`, or the signal's reason, whatever the work does. */
function answer<T>(
  work: Promise<T>,
  name: string,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () =>
      reject(new NestvmError('TIMEOUT', `${name} did not answer within ${timeoutMs / 1000} s`, { exitStatus: 124 }))
    const timer = setTimeout(late, timeoutMs)
    const aborted = () => reject(signal.reason)
    signal.addEventListener('abort', aborted, { once: true })
    work.then(resolve, reject).finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', aborted)
    })
  })
}

/** What its engine, its kernel and whoever was at its console wrote; not what the user's command did. */
async function logsOf(
  context: Context,
  record: GuestRecord,
  limits: { timeoutMs: number; signal: AbortSignal },
): Promise<Gathered[]> {
  const { kernelLog, engineLog, events, consoleLog } = engineFiles(record.engineDir, record.socketDir)
  const logs = { kernel: kernelLog, engine: engineLog, events, console: consoleLog }
  const items = Object.entries(logs).map(([name, path]) => logItem(`nestvm/${name}-log`, path))
  return gather(await engineMachine(context, record), items, limits)
}

async function notRunning({ path, phase }: GuestRecord): Promise<never> {
  throw new NestvmError('NOT_RUNNING', `${path} is not running: it ${phase === 'exited' ? 'has ended' : 'is starting'}`)
}

async function noBundle(): Promise<Bundle> {
  throw new NestvmError('UNSUPPORTED', 'KVM on another host is not tried for a report')
}

function words(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason)
}
