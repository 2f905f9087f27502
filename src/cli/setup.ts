import { Command, Option } from 'commander'
import { type Arch, arches } from '../host/arch.ts'
import { printJson, session } from './session.ts'

export function setupCommand(): Command {
  return new Command('setup')
    .description('Get what machines run from: QEMU, a kernel and the guest images, as Debian packages.')
    .addOption(new Option('--arch <arch>', "the guests' architecture").choices(arches))
    .option('--refresh', 'look for newer packages even though all is there')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
The mirror and its settings are those of this host's apt; NESTVM_MIRROR and NESTVM_KEYRING name others.
Nothing is installed on this host, and nothing needs root. nestvm prune --all removes it again.`,
    )
    .action((options: { arch?: Arch; refresh?: boolean; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { bundleReport } = await import('../bundle/report.ts')
        const { megabytes } = await import('./progress.ts')
        const bundle = await theBundle(own, { arch: options.arch, refresh: options.refresh })
        const report = await bundleReport()
        if (options.json) printJson({ digest: bundle.digest, kernelRelease: bundle.guest.kernelRelease, ...report })
        else {
          for (const { path, bytes, current } of report.directories) {
            console.log(`${megabytes(bytes).padStart(8)}  ${path}${current ? '' : '  (not in use: nestvm prune)'}`)
          }
          console.log(
            `${megabytes(report.totalBytes).padStart(8)}  in all; guests run Linux ${bundle.guest.kernelRelease}`,
          )
        }
        return 0
      }),
    )
}
