import type { Machine } from '../machine/machine.ts'
import { connectHost } from '../machine/ssh-host.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
import type { Context } from './context.ts'
import { runningRecord } from './record.ts'

/**
 * The machine that `--on` names: a running guest by its path, any host by its `ssh://` address, or this host. Throws
 * what `runningRecord`, `reach` and `connectHost` throw. A connection to a host stays until the process ends.
 */
export async function machineOn(context: Context, on: string | undefined): Promise<Machine> {
  if (on === undefined) return context.host
  if (isHostUrl(on)) return connectHost(context.host, on, context.signal)
  return context.guest(await runningRecord(on))
}
