import type { Bundle } from '../bundle/bundle.ts'
import { joinBridge } from '../network/bridge.ts'
import { passtFiles, startPasst } from '../network/passt.ts'
import type { Context } from './context.ts'
import { forwardSsh, publishPorts, routesThrough, setInside } from './forward.ts'
import type { Host } from './host.ts'
import { type GuestRecord, lineage, listRecords } from './record.ts'

/** Opens the way out for a level 1 guest, as its record says. */
export async function leadOutside(
  host: Host,
  bundle: Bundle,
  record: GuestRecord,
  signal: AbortSignal,
  onChange: ((line: string) => void) | undefined,
): Promise<void> {
  if (record.network === 'user') await leadByPasst(host, bundle, record, signal)
  if (record.bridge) for (const line of await joinBridge(host.machine, record.bridge, signal)) onChange?.(line)
}

/** Where the host does not let passt run, the guest starts without a way out, and says why. */
async function leadByPasst({ machine }: Host, { tools }: Bundle, record: GuestRecord, signal: AbortSignal) {
  try {
    await startPasst(machine, tools, passtFiles(record.engineDir, record.socketDir), signal)
  } catch (error) {
    signal.throwIfAborted()
    record.network = 'none'
    record.networkReason = error instanceof Error ? error.message : String(error)
  }
}

/** The way in to a nested guest: a socket at the level 1 guest's QEMU, and routes in the guests between. */
export async function prepareNetwork(
  context: Context,
  bundle: Bundle,
  record: GuestRecord,
  parent: GuestRecord,
  reused: boolean,
): Promise<void> {
  const records = await listRecords()
  const ancestors = lineage(parent, records)
  const [base] = ancestors
  if (!base) return
  const closed = record.network === 'none' && base.network !== 'none'
  const settled = await Promise.allSettled([
    reused || forwardSsh(context, base, record),
    publishPorts(context, base, record),
    // An address that another guest has had may be closed from then.
    (closed || reused) && setInside(context, base, record.address, closed, bundle.guest.nftArgvInGuest),
    ...routesThrough(context, ancestors, record.address),
  ])
  const failed = settled.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
