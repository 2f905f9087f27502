import type { Context } from './context.ts'
import { settle } from './end.ts'
import { thisHost } from './host.ts'
import { reap } from './reap.ts'
import { type GuestRecord, listRecords } from './record.ts'
import { runs } from './stop.ts'

export type ListedMachine = Omit<GuestRecord, 'phase'> & {
  /** A record's phase; `dead`: its engine ended without being asked to; `unreachable`: its host does not answer. */
  phase: GuestRecord['phase'] | 'dead' | 'unreachable'
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
      if (record.phase !== 'running' || (await runs(context, record))) return record
      const now = await settle(context, record)
      return now.phase === 'exited' ? now : { ...record, phase: 'dead' }
    }),
  )
}
