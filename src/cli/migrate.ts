import { Command } from 'commander'
import { printJson, session } from './session.ts'
import { parseDuration, parseMemory } from './values.ts'

interface MigrateOptions {
  to: string
  name?: string
  bandwidth?: number
  downtime?: number
  force?: boolean
  json?: boolean
}

export function migrateCommand(): Command {
  return new Command('migrate')
    .description('Move a nested guest, with all that runs in it, to another guest hypervisor while it runs.')
    .argument('<machine>', 'its path')
    .requiredOption('--to <machine>', 'the guest hypervisor that it is to run in')
    .option('--name <name>', 'its name there (default: the one that it has)')
    .option('--bandwidth <size>', 'send at most this much in a second, for example 10M', parseMemory)
    .option('--downtime <duration>', 'how long it may stand still at the end (default: by its level)', parseDuration)
    .option('--force', 'also where nobody has tested that it survives')
    .option('--json', 'print JSON')
    .action((machine: string, options: MigrateOptions) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { megabytes, showStep } = await import('./progress.ts')
        const { migrate, usualDowntimeMs } = await import('../migrate/migrate.ts')
        const { runningRecord } = await import('../stack/record.ts')
        const { arch, kernel, level } = await runningRecord(machine)
        const bundle = await theBundle(own, { arch, kernel })
        const moved = await migrate(own.context, bundle, {
          ...{ machine, to: options.to, name: options.name, force: options.force === true },
          bandwidth: options.bandwidth && options.bandwidth * 2 ** 20,
          downtimeMs: options.downtime ?? usualDowntimeMs(level),
          onProgress: ({ sent, left }) =>
            showStep(`moving ${machine}: ${megabytes(sent)} sent, ${megabytes(left)} left`),
        }).finally(() => showStep(''))
        if (options.json)
          printJson({ ...moved, downtimeMs: Math.round(moved.downtimeMs), durationMs: Math.round(moved.durationMs) })
        else console.log(moved.machine)
        return 0
      }),
    )
}
