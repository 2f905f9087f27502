// For tests: small scenarios in the two layouts, written after what the schemas of ACRN v2.7 and v3.3 ask for.

interface Layout2 {
  flags?: readonly string[]
  serviceCpus?: readonly number[]
  userCpus?: readonly number[]
  release?: boolean
}

/** As of v2.5 to v2.7: a Service VM and one that it launches. */
export function layout2({ flags = ['0'], serviceCpus = [], userCpus = [2], release = false }: Layout2 = {}): string {
  const affinity = (cpus: readonly number[]) =>
    block(
      '    ',
      'cpu_affinity',
      cpus.map((cpu) => `<pcpu_id>${cpu}</pcpu_id>`),
    )
  const flagList = block(
    '    ',
    'guest_flags',
    flags.map((flag) => `<guest_flag>${flag}</guest_flag>`),
  )
  const vuarts = (com: string) => `    <legacy_vuart id="0">
      <type>VUART_LEGACY_PIO</type>
      <base>${com}_BASE</base>
      <irq>${com}_IRQ</irq>
    </legacy_vuart>
    <legacy_vuart id="1">
      <type>VUART_LEGACY_PIO</type>
      <base>INVALID_COM_BASE</base>
      <irq>COM2_IRQ</irq>
      <target_vm_id>1</target_vm_id>
      <target_uart_id>1</target_uart_id>
    </legacy_vuart>
    <console_vuart id="0">
      <base>INVALID_PCI_BASE</base>
    </console_vuart>
`
  return `<acrn-config board="small" scenario="example">
  <hv>
    <DEBUG_OPTIONS>
      <RELEASE>${release ? 'y' : 'n'}</RELEASE>
    </DEBUG_OPTIONS>
    <FEATURES>
      <SCHEDULER>SCHED_BVT</SCHEDULER>
      <NVMX_ENABLED>n</NVMX_ENABLED>
    </FEATURES>
  </hv>
  <!-- the Service VM: ümläut 𝄞 -->
  <vm id="0">
    <vm_type>SERVICE_VM</vm_type>
    <name>ACRN_Service_VM</name>
${flagList}${affinity(serviceCpus)}${vuarts('SERVICE_VM_COM1')}    <os_config>
      <bootargs>SERVICE_VM_OS_BOOTARGS</bootargs>
    </os_config>
  </vm>
  <vm id="1">
    <vm_type>POST_STD_VM</vm_type>
    <name>POST_STD_VM1</name>
${affinity(userCpus)}    <guest_flags>
      <guest_flag>0</guest_flag>
    </guest_flags>
${vuarts('COM1')}  </vm>
</acrn-config>
`
}

interface Layout3 {
  /** Further elements of the Service VM. */
  service?: string
  bootargs?: string
  userCpus?: readonly number[]
  preLaunched?: boolean
  connection?: boolean
}

/** As of v3.0 on: a Service VM, one that it launches, and one that is launched before it. */
export function layout3({
  service = '',
  bootargs = 'rw quiet',
  userCpus = [2],
  preLaunched = false,
  connection = false,
}: Layout3 = {}): string {
  const vm = (id: number, order: string, name: string, cpus: readonly number[], more = '') => `  <vm id="${id}">
    <load_order>${order}</load_order>
    <vm_type>STANDARD_VM</vm_type>
    <name>${name}</name>
${block(
  '    ',
  'cpu_affinity',
  cpus.map(
    (cpu) => `<pcpu>\n        <pcpu_id>${cpu}</pcpu_id>\n        <real_time_vcpu>n</real_time_vcpu>\n      </pcpu>`,
  ),
)}${more}    <console_vuart>COM Port 1</console_vuart>
  </vm>
`
  const own = `${service}    <os_config>
      <bootargs>${bootargs}</bootargs>
    </os_config>
`
  const connections = `    <vuart_connections>
      <vuart_connection>
        <type>legacy</type>
        <endpoint>
          <vm_name>ACRN_Service_VM</vm_name>
        </endpoint>
      </vuart_connection>
    </vuart_connections>
`
  return `<acrn-config>
  <hv>
    <BUILD_TYPE>debug</BUILD_TYPE>
    <FEATURES>
      <SCHEDULER>SCHED_BVT</SCHEDULER>
    </FEATURES>
${connection ? connections : ''}  </hv>
${vm(0, 'SERVICE_VM', 'ACRN_Service_VM', [], own)}${vm(1, 'POST_LAUNCHED_VM', 'POST_STD_VM1', userCpus)}${
  preLaunched ? vm(2, 'PRE_LAUNCHED_VM', 'SAFETY_VM', [3]) : ''
}</acrn-config>
`
}

/** An element with others in it, one a line; nothing without them. */
function block(indent: string, name: string, inner: readonly string[]): string {
  if (inner.length === 0) return ''
  return `${indent}<${name}>\n${inner.map((line) => `${indent}  ${line}\n`).join('')}${indent}</${name}>\n`
}
