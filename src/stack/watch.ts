import { setTimeout as sleep } from 'node:timers/promises'
import { engineFiles } from '../engine/qemu/argv.ts'
import { run } from '../machine/run.ts'
import type { Context } from './context.ts'
import { died, explain, reasonFor } from './death.ts'
import { engineAlive } from './engine-process.ts'
import { thisHost } from './host.ts'
import { engineMachine } from './output.ts'
import { type GuestRecord, lineage, listRecords } from './record.ts'

/** What ends in less time is not worth a connection to each level. */
const patienceMs = 2000
const intervalMs = 500

/**
 * The work's outcome, or `GUEST_DIED` as soon as one of the deaths is known, or that the engine of this guest or of one
 * around it has ended: this process need not have started it.
 */
export async function unlessDead<T>(
  context: Context,
  record: GuestRecord,
  deaths: readonly Promise<never>[],
  work: Promise<T>,
): Promise<T> {
  using watch = watchEngines(context, record)
  const all = [...deaths, watch.died]
  try {
    return await Promise.race([work, ...all])
  } catch (error) {
    throw await reasonFor(error, all)
  }
}

/** Watches, until it is disposed, the engines of a running guest and of those around it; `died` rejects when one ends. */
export function watchEngines(context: Context, record: GuestRecord): Disposable & { died: Promise<never> } {
  const ended = new AbortController()
  const { signal } = ended
  const dead = new Promise<never>((_, reject) => {
    const watchAll = async () => {
      await sleep(patienceMs, undefined, { signal, ref: false })
      for (const guest of lineage(record, await listRecords())) {
        // What cannot be asked tells nothing: a guest around it may be what died, and is watched too.
        engineEnded(context, guest, signal).then(
          async () => reject(await explainDeath(context, guest)),
          () => {},
        )
      }
    }
    watchAll().catch(() => {})
  })
  dead.catch(() => {})
  return { died: dead, [Symbol.dispose]: () => ended.abort() }
}

/** Ends when the guest's engine does. */
async function engineEnded(context: Context, guest: GuestRecord, signal: AbortSignal): Promise<void> {
  if (guest.host === thisHost && guest.parent === undefined) {
    while (await engineAlive(context, guest)) await sleep(intervalMs, undefined, { signal, ref: false })
    return
  }
  const machine = await engineMachine(context, guest)
  await run(machine, ['sh', '-c', waitScript, 'sh', `${guest.enginePid}`, guest.engineDir], { signal })
}

/** In a guest, reading from a pipe that nobody writes to is a sleep without a process, which costs VM exits. */
const waitScript = `pause() { sleep 1; }
[ -p "$2/never" ] && exec 4<> "$2/never" && pause() { read -t 1 x <&4; }
while [ -d "/proc/$1" ]; do pause; done`

async function explainDeath(context: Context, guest: GuestRecord): Promise<unknown> {
  const dead = died('its engine ended')
  const files = engineFiles(guest.engineDir, guest.socketDir)
  // The machine that it ran on may end meanwhile, or be out of reach: that it ended is known all the same.
  return engineMachine(context, guest).then(
    (machine) => explain(dead, guest.path, { machine }, files),
    () => died(`${guest.path}: ${dead.message}`),
  )
}
