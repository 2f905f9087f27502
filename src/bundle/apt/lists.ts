import { setTimeout as sleep } from 'node:timers/promises'
import { NestvmError } from '../../store/error.ts'
import { apt } from './command.ts'
import type { AptState } from './state.ts'

/** Gets the package lists, which apt checks the signatures of; those that have not changed are not got again. */
export async function updateLists({ machine, config }: AptState, signal?: AbortSignal): Promise<void> {
  const argv = ['apt-get', 'update', '-qq', '-o', 'APT::Status-Fd=1']
  const update = () => apt(machine, argv, { config, onPercent: () => {}, signal, timeoutMs: 10 * 60_000 })
  // The apt of a set-up that was killed ends, and lets go of its lock, when it next reports its progress to nobody.
  for (let tries = 0; tries < 30; tries++) {
    try {
      await update()
      return
    } catch (error) {
      if (!(error instanceof NestvmError) || error.code !== 'APT_BUSY') throw error
      await sleep(1000, undefined, { signal })
    }
  }
  await update()
}
