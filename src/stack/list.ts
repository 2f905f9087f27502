import { readFile } from 'node:fs/promises'
import * as z from 'zod'
import { healthFile } from '../container/health.ts'
import { run } from '../machine/run.ts'
import type { Context } from './context.ts'
import { settle } from './end.ts'
import { thisHost } from './host.ts'
import { answerLimitMs } from './plan.ts'
import { reap } from './reap.ts'
import { type GuestRecord, listRecords } from './record.ts'
import { isGone, runs } from './stop.ts'

export type ListedMachine = Omit<GuestRecord, 'phase'> & {
  /** A record's phase; `dead`: its engine ended without being asked to; `unreachable`: what it runs on does not answer. */
  phase: GuestRecord['phase'] | 'dead' | 'unreachable'
  /** Of a container whose image has a health check. */
  health?: 'starting' | 'healthy' | 'unhealthy'
  /** Of a level 1 guest of this host: what its engine takes of the host's memory, in bytes, shared pages in parts. */
  pssBytes?: number
}

/** All machines, with what their engines' processes tell of their state. */
export async function listMachines(context: Context): Promise<ListedMachine[]> {
  const hosts = new Set((await listRecords()).map(({ host }) => host).filter((host) => host !== thisHost))
  const unreachable = new Set<string>()
  await Promise.all([...hosts].map((host) => reap(context, host).catch(() => unreachable.add(host))))
  const records = await listRecords()
  return Promise.all(
    records.map(async (record): Promise<ListedMachine> => {
      if (unreachable.has(record.host)) return { ...record, phase: 'unreachable' }
      if (record.phase !== 'running') return record
      if (await runs(context, record)) {
        return { ...record, health: await health(context, record), pssBytes: await proportionalSetSize(record) }
      }
      const now = await settle(context, record)
      if (now.phase === 'exited') return now
      // What cannot be asked may run on.
      const gone = await isGone(context, record).catch(() => false)
      return { ...record, phase: gone ? 'dead' : 'unreachable' }
    }),
  )
}

/** By proc_pid_smaps(5); undefined where it is not known. Clones of one snapshot share what they have not written to. */
export async function proportionalSetSize({ engineProcess }: GuestRecord): Promise<number | undefined> {
  if (!engineProcess) return undefined
  const rollup = await readFile(`/proc/${engineProcess.pid}/smaps_rollup`, 'utf8').catch(() => '')
  const kib = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1]
  return kib === undefined ? undefined : Number(kib) * 1024
}

/** Of a running guest; one that does not answer has none. */
async function health(context: Context, record: GuestRecord): Promise<ListedMachine['health']> {
  if (!record.container?.config.healthcheck) return undefined
  try {
    const guest = await context.guest(record)
    const { stdout } = await run(guest, ['cat', healthFile], { timeoutMs: answerLimitMs(record.level) })
    return z.enum(['starting', 'healthy', 'unhealthy']).parse(stdout.trim())
  } catch {
    return undefined
  }
}
