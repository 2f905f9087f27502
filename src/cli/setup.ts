import { Command, Option } from 'commander'
import { type Arch, arches } from '../host/arch.ts'
import { type CpuVendor, cpuVendors } from '../host/vendor.ts'
import { printJson, session } from './session.ts'

interface SetupOptions {
  arch?: Arch
  cpuVendor?: CpuVendor
  refresh?: boolean
  json?: boolean
}

export function setupCommand(): Command {
  return new Command('setup')
    .description('Get what machines run from: QEMU, a kernel and the guest images, as Debian packages.')
    .addOption(new Option('--arch <arch>', "the guests' architecture (default: this host's)").choices(arches))
    .addOption(
      new Option('--cpu-vendor <vendor>', 'what guests with a processor of this vendor need, emulated').choices(
        cpuVendors,
      ),
    )
    .option('--refresh', 'look for newer packages even though all is there')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
The mirror and its settings are those of this host's apt; NESTVM_MIRROR and NESTVM_KEYRING name others.
Nothing is installed on this host, and nothing needs root. nestvm prune --all removes it again.`,
    )
    .action((options: SetupOptions) =>
      session(options.json === true, async (own) => {
        const { theBochs, theBundle } = await import('./bundle.ts')
        const { bundleReport } = await import('../bundle/report.ts')
        const { megabytes } = await import('./progress.ts')
        const bundle = await theBundle(own, { arch: options.arch, refresh: options.refresh })
        if (options.cpuVendor === 'intel') await theBochs(own, bundle, options.refresh)
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
