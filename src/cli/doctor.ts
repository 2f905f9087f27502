import { Command } from 'commander'
import { printJson, session } from './session.ts'

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Tell whether KVM on this host can be used, and why.')
    .option('--refresh', 'ask KVM again rather than repeat the answer of this boot')
    .option('--json', 'print JSON')
    .action((options: { refresh?: boolean; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { kvmAnswer } = await import('../host/kvm.ts')
        const bundle = await theBundle(own)
        const { key: _, ...kvm } = await kvmAnswer(own.context.host, bundle.tools.qemuArgv(), {
          refresh: options.refresh,
          signal: own.context.signal,
        })
        if (options.json) printJson({ kvm })
        else {
          console.log(`KVM: ${kvm.usable ? 'works' : 'is not used'} (${kvm.code})`)
          console.log(`  seen: ${kvm.reason}`)
          if (kvm.milliseconds !== undefined)
            console.log(`  the tiny guest took ${kvm.milliseconds} ms, ${kvm.testedAt}`)
          if (!kvm.usable)
            console.log(
              '  so: the outermost level is emulated, with nested virtualization; deeper levels use KVM in it',
            )
          if (kvm.hint) console.log(`  to mend: ${kvm.hint}`)
        }
        return 0
      }),
    )
}
