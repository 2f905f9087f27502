import { setTimeout as sleep } from 'node:timers/promises'
import { Command, Option } from 'commander'
import type { Context } from '../stack/context.ts'
import type { LogKind } from '../stack/output.ts'
import type { GuestRecord } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'
import { session } from './session.ts'

/** `tail -f` does not notice that nobody will write any more. */
async function untilEnd(context: Context, record: GuestRecord): Promise<void> {
  const { runs } = await import('../stack/stop.ts')
  while (await runs(context, record)) await sleep(1000, undefined, { signal: context.signal })
  // What was written last has to arrive.
  await sleep(500)
}

/** The record as the end of its machine has left it. */
async function over(context: Context, { host, path }: GuestRecord): Promise<GuestRecord | undefined> {
  const { reap } = await import('../stack/reap.ts')
  const { findRecord } = await import('../stack/record.ts')
  const { settle } = await import('../stack/end.ts')
  await reap(context, host)
  return settle(context, await findRecord(path)).catch(() => undefined)
}

export function logsCommand(): Command {
  return new Command('logs')
    .description("Print what a detached machine's command has written.")
    .argument('<machine>', 'its path, for example outer/inner')
    .option('-f, --follow', 'go on printing until the machine ends')
    .addOption(
      new Option('--of <what>', 'whose log')
        .choices(['output', 'kernel', 'engine', 'console'] satisfies LogKind[])
        .default('output'),
    )
    .action((path: string, options: { follow?: boolean; of: LogKind }) =>
      session(false, async (own) => {
        const { findRecord } = await import('../stack/record.ts')
        const { openLog } = await import('../stack/output.ts')
        const { attach } = await import('./attach.ts')
        const { settle } = await import('../stack/end.ts')
        const record = await settle(own.context, await findRecord(path))
        const follow = options.follow === true && record.phase === 'running'
        const log = await openLog(own.context, record, options.of, { follow })
        if (!follow) return attach(log, own, { interactive: false, tty: false })
        const ended = untilEnd(own.context, record)
        ended.then(
          () => log.kill(),
          () => {},
        )
        let from = 0
        log.stdout.on('data', (chunk: Buffer) => {
          from += chunk.length
        })
        try {
          await attach(log, own, { interactive: false, tty: false })
        } catch (error) {
          // The guest around it has ended with its command, and has handed on what that has written.
          if (!(error instanceof NestvmError && error.code === 'MACHINE_LOST')) throw error
          await ended
          const now = await over(own.context, record)
          if (now?.phase !== 'exited') throw error
          if (options.of === 'output') {
            await attach(await openLog(own.context, now, 'output', { from }), own, { interactive: false, tty: false })
          }
        }
        return 0
      }),
    )
}
