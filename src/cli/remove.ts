import { Command } from 'commander'
import { session } from './session.ts'

export function stopCommand(): Command {
  return new Command('stop')
    .description('Shut machines down, from the inside out.')
    .argument('<machine...>', 'their paths')
    .action((paths: string[]) =>
      session(false, async ({ context }) => {
        const { findRecord } = await import('../stack/record.ts')
        const { stop } = await import('../stack/stop.ts')
        const records = await Promise.all(paths.map(findRecord))
        for (const record of records) await stop(context, record)
        return 0
      }),
    )
}

export function rmCommand(): Command {
  return new Command('rm')
    .description('Remove machines that have ended; with --force also running ones, at once.')
    .argument('<machine...>', 'their paths')
    .option('-f, --force', 'end running machines')
    .action((paths: string[], options: { force?: boolean }) =>
      session(false, async ({ context }) => {
        const { findRecord } = await import('../stack/record.ts')
        const { thisHost } = await import('../stack/host.ts')
        const { destroy, forget, isGone } = await import('../stack/stop.ts')
        const { NestvmError } = await import('../store/error.ts')
        const records = await Promise.all(paths.map(findRecord))
        for (const record of records) {
          if (!options.force && record.phase !== 'exited' && !(await isGone(context, record))) {
            throw new NestvmError('STILL_RUNNING', `${record.path} is running`, {
              hint: `nestvm stop ${record.path}, or: nestvm rm --force ${record.path}`,
            })
          }
        }
        for (const record of records) {
          await destroy(context, record).catch(async (error: unknown) => {
            if (!options.force || record.host === thisHost) throw error
            await forget(context, record)
            const why = error instanceof Error ? error.message : String(error)
            process.stderr.write(`nestvm: ${record.path} may still run on ${record.host}: ${why}\n`)
          })
        }
        return 0
      }),
    )
}

export function pruneCommand(): Command {
  return new Command('prune')
    .description(
      'Remove what is not in use: ended machines, parts of older bundles, stale snapshots, what images have left.',
    )
    .option('--all', 'also the bundle, all images and all snapshots; refused while machines run')
    .action((options: { all?: boolean }) =>
      session(false, async ({ context }) => {
        const { prune } = await import('../stack/prune.ts')
        const { megabytes } = await import('./progress.ts')
        const { pruneImages } = await import('../image/remove.ts')
        const { machines, bytes } = await prune(context, options.all === true)
        const { currentBundle } = await import('../bundle/bundle.ts')
        const { hostArch } = await import('../host/arch.ts')
        const { pruneSnapshots } = await import('../snapshot/limit.ts')
        const saved = await pruneSnapshots(
          (arch, kernel) => currentBundle(hostArch(), arch, { kernel }),
          options.all === true,
        )
        const { pruneKernelWork } = await import('../kernel/build.ts')
        await pruneKernelWork()
        const images = await pruneImages(options.all === true, context.signal)
        const ended = `${machines} ended machine${machines === 1 ? '' : 's'}`
        console.log(
          `removed ${ended}, ${megabytes(bytes)} of bundles, ${megabytes(images.bytes)} of images and ${megabytes(saved)} of snapshots`,
        )
        return 0
      }),
    )
}
