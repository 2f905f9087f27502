import type { Context } from './context.ts'
import { type GuestRecord, listRecords } from './record.ts'
import { runs } from './stop.ts'

export type ListedMachine = Omit<GuestRecord, 'phase'> & {
  /** A record's phase, or `dead`: its engine ended without being asked to. */
  phase: GuestRecord['phase'] | 'dead'
}

/** All machines, with what their engines' processes tell of their state. */
export async function listMachines(context: Context): Promise<ListedMachine[]> {
  const records = await listRecords()
  return Promise.all(
    records.map(async (record) => {
      const alive = record.phase !== 'running' || (await runs(context, record))
      return { ...record, phase: alive ? record.phase : 'dead' }
    }),
  )
}
