import { setTimeout as sleep } from 'node:timers/promises'
import { Command, Option } from 'commander'
import type { Context } from '../stack/context.ts'
import type { LogKind } from '../stack/output.ts'
import type { GuestRecord } from '../stack/record.ts'
import { session } from './session.ts'

/** `tail -f` does not notice that nobody will write any more. */
async function untilEnd(context: Context, record: GuestRecord): Promise<void> {
  const { runs } = await import('../stack/stop.ts')
  while (await runs(context, record)) await sleep(1000, undefined, { signal: context.signal })
  // What was written last has to arrive.
  await sleep(500)
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
        const log = await openLog(own.context, record, options.of, follow)
        if (!follow) return attach(log, own, { interactive: false, tty: false })
        const ended = untilEnd(own.context, record)
        ended.then(
          () => log.kill(),
          () => {},
        )
        await attach(log, own, { interactive: false, tty: false })
        return 0
      }),
    )
}
