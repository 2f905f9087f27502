import { stat } from 'node:fs/promises'
import { Command } from 'commander'
import type { Supplies } from '../migrate/end.ts'
import { NestvmError } from '../store/error.ts'
import { printJson, session } from './session.ts'
import { parseDuration, parseMemory } from './values.ts'

/** Throws `CANNOT_MOVE` where this host has the image no more. */
async function contentOf(digest: string) {
  const { contentPaths } = await import('../image/paths.ts')
  const { squashfs } = contentPaths(digest)
  const there = await stat(squashfs).catch(() => undefined)
  if (there) return { digest, squashfs, size: there.size }
  throw new NestvmError('CANNOT_MOVE', `its image ${digest} is not on this host any more`, {
    hint: 'nestvm image pull',
  })
}

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
    .description(
      'Move a guest, with all that runs in it, while it runs: to another guest hypervisor, or to another host.',
    )
    .argument('<machine>', 'its path')
    .requiredOption(
      '--to <machine>',
      'the guest hypervisor that it is to run in; for a level 1 guest ssh://USER@SERVER, or host for this one',
    )
    .option('--name <name>', 'its name there (default: the one that it has)')
    .option('--bandwidth <size>', 'send at most this much in a second, for example 10M', parseMemory)
    .option('--downtime <duration>', 'how long it may stand still at the end (default: by its level)', parseDuration)
    .option('--force', 'also where nobody has tested that it survives')
    .option('--json', 'print JSON')
    .action((machine: string, options: MigrateOptions) =>
      session(options.json === true, async (own) => {
        const { bundleOn, imageOn, theBundle } = await import('./bundle.ts')
        const { megabytes, showStep } = await import('./progress.ts')
        const { migrate, usualDowntimeMs } = await import('../migrate/migrate.ts')
        const { runningRecord } = await import('../stack/record.ts')
        const { arch, kernel, level } = await runningRecord(machine)
        const { thisHost } = await import('../stack/host.ts')
        const here = await theBundle(own, { arch, kernel })
        const supplies: Supplies = {
          bundle: ({ name }) => bundleOn(own, here, name === thisHost ? {} : { on: name }),
          image: async (digest, host) => imageOn(own, here, await contentOf(digest), host),
        }
        const moved = await migrate(own.context, supplies, {
          ...{ machine, to: options.to, name: options.name, force: options.force === true },
          bandwidth: options.bandwidth && options.bandwidth * 2 ** 20,
          downtimeMs: options.downtime ?? usualDowntimeMs(level),
          onProgress: ({ sent, left }) =>
            showStep(`moving ${machine}: ${megabytes(sent)} sent, ${megabytes(left)} left`),
        }).finally(() => showStep(''))
        for (const port of moved.portsTaken)
          console.error(`nestvm: ${port} is taken there: nothing leads to the guest by it`)
        if (options.json)
          printJson({ ...moved, downtimeMs: Math.round(moved.downtimeMs), durationMs: Math.round(moved.durationMs) })
        else console.log(moved.machine)
        return 0
      }),
    )
}
