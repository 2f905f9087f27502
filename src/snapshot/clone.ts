import type { Bundle } from '../bundle/bundle.ts'
import { checkPort, type PublishedPort } from '../network/ports.ts'
import type { Context } from '../stack/context.ts'
import { thisHost } from '../stack/host.ts'
import { checkName } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { findSnapshot } from './record.ts'
import { restore } from './restore.ts'
import { checkWorld, worldOf } from './world.ts'

export interface CloneRequest {
  /** A tag, or the beginning of an id. */
  snapshot: string
  name: string
  detach: boolean
  /** Published for the innermost guest of the stack that was saved. */
  ports: readonly PublishedPort[]
}

/** Lets the guests of a snapshot run again. All can be reached then. Throws what `findSnapshot` and `restore` throw. */
export async function cloneSnapshot(
  context: Context,
  bundle: Bundle,
  { snapshot: wanted, name, detach, ports }: CloneRequest,
): Promise<{ guests: StartedGuest[]; innermost: StartedGuest }> {
  checkName(name)
  const snapshot = await findSnapshot(wanted)
  checkWorld(snapshot.world, await worldOf(bundle, snapshot.world.accelerator), snapshot.id)
  await Promise.all(ports.map(checkPort))
  const host = await context.hostNamed(thisHost)
  const { guests, innermost, renew } = await restore(context, { snapshot, bundle, host, name, detach, ports })
  try {
    await renew()
    return { guests, innermost }
  } catch (error) {
    // The outermost, and with it all others.
    if (guests[0]) await destroy(context, guests[0].record).catch(() => {})
    throw error
  }
}
