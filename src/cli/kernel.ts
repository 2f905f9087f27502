import { Command } from 'commander'
import { printJson, type Session, session } from './session.ts'
import { table } from './table.ts'
import { parseCount } from './values.ts'

export function kernelCommand(): Command {
  return new Command('kernel')
    .description('Kernels of your own for guests: build, list and remove them; install one on this host.')
    .addCommand(buildCommand())
    .addCommand(listCommand())
    .addCommand(removeCommand())
    .addCommand(installCommand())
}

interface BuildOptions {
  jobs?: number
  refresh?: boolean
  fromSource?: boolean
  json?: boolean
}

function buildCommand(): Command {
  return new Command('build')
    .description("Build the kernel of a profile from Debian's source of Linux, unless it is there already.")
    .argument('<profile>', "a built-in profile's name, one of your own, or the path of a profile")
    .option('-j, --jobs <n>', 'compilers at once (default: one for each processor)', parseCount)
    .option('--refresh', 'look for newer packages even though there is a kernel')
    .option('--from-source', 'take none that was built elsewhere')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Source and compiler come as Debian packages, which are only unpacked: nothing is installed, and nothing needs root.
NESTVM_KERNEL_URL names a place that ready-made kernels are taken from. For profiles see docs/kernels.md.`,
    )
    .action((name: string, options: BuildOptions) =>
      session(options.json === true, async ({ context }) => {
        const { basename } = await import('node:path')
        const { hostArch } = await import('../host/arch.ts')
        const { buildKernel } = await import('../kernel/build.ts')
        const { loadProfile } = await import('../kernel/profile.ts')
        const { showProgress } = await import('./progress.ts')
        const profile = await loadProfile(name)
        const { progress, done } = showProgress()
        const { kernel, how } = await buildKernel({
          ...{ profile, hostArch: hostArch(), machine: context.host, signal: context.signal, progress },
          ...{ jobs: options.jobs, refresh: options.refresh, fromSource: options.fromSource },
          onNote: (line) => console.error(`nestvm: ${line}`),
        }).finally(done)
        const { dir, manifest } = kernel
        const { kernelRelease: release, digest } = manifest
        if (options.json) printJson({ profile: profile.name, kernel: basename(dir), release, digest, dir, how })
        else console.log(basename(dir))
        return 0
      }),
    )
}

function listCommand(): Command {
  return new Command('ls')
    .description('List profiles and kernels.')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      session(options.json === true, async () => {
        const { listProfiles } = await import('../kernel/list.ts')
        const { megabytes } = await import('./progress.ts')
        const listed = await listProfiles()
        if (options.json) printJson(listed)
        else {
          const rows = listed.map(({ profile = '(none)', arch, kernel, problem }) => [
            ...[profile, arch, kernel?.name ?? problem ?? '(not built)'],
            ...[kernel?.release ?? '', kernel ? megabytes(kernel.bytes) : ''],
          ])
          console.log(table([['PROFILE', 'ARCH', 'KERNEL', 'RELEASE', 'SIZE'], ...rows]))
        }
        return 0
      }),
    )
}

function removeCommand(): Command {
  return new Command('rm')
    .description('Remove kernels; machines that run from them run on.')
    .argument('<kernel...>', 'their names, the beginnings of those, or names of profiles')
    .action((names: string[]) =>
      session(false, async () => {
        const { removeKernels } = await import('../kernel/list.ts')
        const { megabytes } = await import('./progress.ts')
        console.log(`removed ${megabytes(await removeKernels(names))}`)
        return 0
      }),
    )
}

interface InstallOptions {
  root: string
  dryRun?: boolean
  yes?: boolean
  undo?: boolean
  json?: boolean
}

function installCommand(): Command {
  return new Command('install-host')
    .description('Install a kernel on this host, beside those that it has, or undo that.')
    .argument('[kernel]', "a profile, a kernel's name, or its directory (default: nested)")
    .option('--root <dir>', 'install in the system in this directory rather than the running one', '/')
    .option('--dry-run', 'show what would be done, and do nothing')
    .option('-y, --yes', 'do not ask')
    .option('--undo', 'take back what was installed')
    .option('--json', 'print JSON')
    .action((kernel: string | undefined, options: InstallOptions) =>
      session(options.json === true, (own) =>
        options.undo ? uninstall(own, options) : installKernel(own, kernel, options),
      ),
    )
}

async function installKernel(own: Session, name: string | undefined, options: InstallOptions): Promise<number> {
  const { showPlan, stepsForJson } = await import('./enable-plan.ts')
  const { confirm } = await import('./confirm.ts')
  const { findKernel } = await import('../kernel/list.ts')
  const { install, planInstall } = await import('../kernel/install-host.ts')
  const request = await hostRequest(own, options)
  const plan = await planInstall(request, await findKernel(name ?? 'nested'))
  if (!options.json) showPlan({ title: 'kernel', ...plan })
  const todo = plan.steps.length > 0 && !options.dryRun
  if (todo) {
    await confirm(own, options)
    await install(request, plan)
  }
  const { summary, steps, notes } = plan
  if (options.json) printJson({ root: request.root, summary, notes, steps: stepsForJson(steps), applied: todo })
  else if (todo) console.log('done; nestvm kernel install-host --undo takes it back')
  return 0
}

async function uninstall(own: Session, options: InstallOptions): Promise<number> {
  const { showPlan, stepsForJson } = await import('./enable-plan.ts')
  const { confirm } = await import('./confirm.ts')
  const { planUninstall, requireRoot } = await import('../kernel/install-host.ts')
  const { undo } = await import('../enable/undo.ts')
  const request = await hostRequest(own, options)
  const plans = await planUninstall(request)
  const summary = 'what was installed is removed'
  if (!options.json) for (const { book, steps, notes } of plans) showPlan({ title: book.name, summary, steps, notes })
  if (!options.dryRun) {
    await confirm(own, options)
    await requireRoot(request)
    for (const plan of plans) await undo(request.machine, plan, own.context.signal)
  }
  if (options.json) {
    const shown = plans.map(({ book, steps, notes }) => ({ kernel: book.name, notes, steps: stepsForJson(steps) }))
    printJson({ root: request.root, plans: shown, applied: !options.dryRun })
  } else if (!options.dryRun) console.log('done')
  return 0
}

async function hostRequest({ context }: Session, { root }: InstallOptions) {
  const { resolve } = await import('node:path')
  return { machine: context.host, root: resolve(root), signal: context.signal }
}
