//! The targets of a clone job: messages of google.cloud.vmmigration.

use super::json::{message, open_enums};
use std::collections::BTreeMap;

message! {
    /// A VM in Compute Engine.
    ComputeEngineTargetDetails {
        /// The name of the VM.
        vm_name "vmName": String,
        /// The id or number of the project.
        project "project": String,
        /// The zone.
        zone "zone": String,
        /// The series of machine types.
        machine_type_series "machineTypeSeries": String,
        /// The machine type.
        machine_type "machineType": String,
        /// Network tags of the VM.
        network_tags "networkTags": Vec<String>,
        /// The NICs.
        network_interfaces "networkInterfaces": Vec<NetworkInterface>,
        /// The service account of the VM.
        service_account "serviceAccount": String,
        /// The type of the disks.
        disk_type "diskType": ComputeEngineDiskType,
        /// Labels of the VM.
        labels "labels": BTreeMap<String, String>,
        /// The license for the adaptation of the OS.
        license_type "licenseType": ComputeEngineLicenseType,
        /// The license that the adaptation reported.
        applied_license "appliedLicense": Option<AppliedLicense>,
        /// How the VM is scheduled.
        compute_scheduling "computeScheduling": Option<ComputeScheduling>,
        /// Whether Secure Boot is on; only with EFI.
        secure_boot "secureBoot": bool,
        /// Whether there is a vTPM.
        enable_vtpm "enableVtpm": bool,
        /// Whether integrity is monitored.
        enable_integrity_monitoring "enableIntegrityMonitoring": bool,
        /// The firmware, as in the source.
        boot_option "bootOption": ComputeEngineBootOption,
        /// Metadata of the VM.
        metadata "metadata": BTreeMap<String, String>,
        /// More licenses of the VM.
        additional_licenses "additionalLicenses": Vec<String>,
        /// The hostname.
        hostname "hostname": String,
        /// The encryption of the disks.
        encryption "encryption": Option<Encryption>,
        /// Whether the firmware is changed on the way.
        boot_conversion "bootConversion": BootConversion,
        /// Settings of the adaptation of the OS.
        adaptation_modifiers "adaptationModifiers": Vec<AdaptationModifier>,
        /// More zones of regional disks.
        disk_replica_zones "diskReplicaZones": Vec<String>,
        /// The storage pool of the disks, as a full path.
        storage_pool "storagePool": String,
    }
}

message! {
    /// A NIC.
    NetworkInterface {
        /// The network.
        network "network": String,
        /// The subnetwork.
        subnetwork "subnetwork": String,
        /// `ephemeral`, an IPv4 address, or the path of a named address.
        internal_ip "internalIp": String,
        /// The external address.
        external_ip "externalIp": String,
        /// The tier of the external address.
        network_tier "networkTier": ComputeEngineNetworkTier,
    }
}

message! {
    /// The license that the adaptation of the OS reported.
    AppliedLicense {
        /// Its type.
        r#type "type": AppliedLicenseType,
        /// The license itself.
        os_license "osLicense": String,
    }
}

message! {
    /// A setting of the adaptation of the OS.
    AdaptationModifier {
        /// Its name.
        modifier "modifier": String,
        /// Its value.
        value "value": String,
    }
}

message! {
    /// How a VM is scheduled.
    ComputeScheduling {
        /// What happens to the VM while its host is maintained.
        on_host_maintenance "onHostMaintenance": OnHostMaintenance,
        /// Whether the VM starts again by itself, in v1alpha1; `restart_type` replaced it.
        automatic_restart "automaticRestart": bool,
        /// Whether the VM starts again by itself.
        restart_type "restartType": RestartType,
        /// Which sole-tenant nodes are wanted, and which not.
        node_affinities "nodeAffinities": Vec<SchedulingNodeAffinity>,
        /// The fewest virtual CPUs on a sole-tenant node.
        min_node_cpus "minNodeCpus": i32,
    }
}

message! {
    /// Which sole-tenant nodes are wanted, or not.
    SchedulingNodeAffinity {
        /// The key of a label of nodes.
        key "key": String,
        /// Whether nodes with these labels are wanted.
        operator "operator": NodeAffinityOperator,
        /// The values of the label.
        values "values": Vec<String>,
    }
}

message! {
    /// The encryption of disks.
    Encryption {
        /// The name of the key in Cloud KMS.
        kms_key "kmsKey": String,
    }
}

message! {
    /// Disks in Compute Engine.
    ComputeEngineDisksTargetDetails {
        /// The disks that were made.
        disks "disks": Vec<PersistentDisk>,
    }
    /// Whether the disks stay alone or are attached to a VM.
    oneof vm_target: VmTarget {
        /// Alone.
        disks_target_details "disksTargetDetails": DisksTargetDetails(DisksMigrationDisksTargetDetails),
        /// Attached to a VM.
        vm_target_details "vmTargetDetails": VmTargetDetails(DisksMigrationVmTargetDetails),
    }
}

message! {
    /// A disk that was made.
    PersistentDisk {
        /// Which disk of the source VM it is.
        source_disk_number "sourceDiskNumber": i32,
        /// Its URI.
        disk_uri "diskUri": String,
    }
}

message! {
    /// Disks without a VM: no fields.
    DisksMigrationDisksTargetDetails {}
}

message! {
    /// The VM that the disks are attached to.
    DisksMigrationVmTargetDetails {
        /// Its URI.
        vm_uri "vmUri": String,
    }
}

message! {
    /// TargetVMDetails, as v1alpha1 described a VM in Compute Engine.
    TargetVmDetailsAlpha {
        /// The name of the VM.
        name "name": String,
        /// The path of the TargetProject.
        target_project "targetProject": String,
        /// The project.
        project "project": String,
        /// The zone.
        zone "zone": String,
        /// The series of machine types.
        machine_type_series "machineTypeSeries": String,
        /// The machine type.
        machine_type "machineType": String,
        /// The network.
        network "network": String,
        /// The subnetwork.
        subnetwork "subnetwork": String,
        /// `ephemeral`, an IPv4 address, or the path of a named address.
        internal_ip "internalIp": String,
        /// The external address.
        external_ip "externalIp": String,
        /// Network tags of the VM.
        network_tags "networkTags": Vec<String>,
        /// The NICs.
        network_interfaces "networkInterfaces": Vec<NetworkInterface>,
        /// The service account of the VM.
        service_account "serviceAccount": String,
        /// The type of the disks.
        disk_type "diskType": DiskTypeAlpha,
        /// Labels of the VM.
        labels "labels": BTreeMap<String, String>,
        /// The license for the adaptation of the OS.
        license_type "licenseType": LicenseTypeAlpha,
        /// The license that the adaptation reported.
        applied_license "appliedLicense": Option<AppliedLicense>,
        /// How the VM is scheduled.
        compute_scheduling "computeScheduling": Option<ComputeScheduling>,
        /// Whether Secure Boot is on; only with EFI.
        secure_boot "secureBoot": bool,
        /// The firmware, as in the source.
        boot_option "bootOption": BootOptionAlpha,
        /// Metadata of the VM.
        metadata "metadata": BTreeMap<String, String>,
    }
}

open_enums! {
    /// The type of a disk.
    ComputeEngineDiskType {
        /// Not said.
        Unspecified = 0, "COMPUTE_ENGINE_DISK_TYPE_UNSPECIFIED";
        /// Standard.
        Standard = 1, "COMPUTE_ENGINE_DISK_TYPE_STANDARD";
        /// SSD.
        Ssd = 2, "COMPUTE_ENGINE_DISK_TYPE_SSD";
        /// Balanced.
        Balanced = 3, "COMPUTE_ENGINE_DISK_TYPE_BALANCED";
        /// Hyperdisk balanced.
        HyperdiskBalanced = 4, "COMPUTE_ENGINE_DISK_TYPE_HYPERDISK_BALANCED";
        /// Hyperdisk balanced, highly available; the number is its place in the discovery document.
        HyperdiskBalancedHighAvailability = 5, "COMPUTE_ENGINE_DISK_TYPE_HYPERDISK_BALANCED_HIGH_AVAILABILITY";
    }

    /// Who brings the license of the OS.
    ComputeEngineLicenseType {
        /// The default of the OS.
        Default = 0, "COMPUTE_ENGINE_LICENSE_TYPE_DEFAULT";
        /// Pay as you go.
        Payg = 1, "COMPUTE_ENGINE_LICENSE_TYPE_PAYG";
        /// Bring your own.
        Byol = 2, "COMPUTE_ENGINE_LICENSE_TYPE_BYOL";
    }

    /// The firmware.
    ComputeEngineBootOption {
        /// Not said.
        Unspecified = 0, "COMPUTE_ENGINE_BOOT_OPTION_UNSPECIFIED";
        /// EFI.
        Efi = 1, "COMPUTE_ENGINE_BOOT_OPTION_EFI";
        /// BIOS.
        Bios = 2, "COMPUTE_ENGINE_BOOT_OPTION_BIOS";
    }

    /// The tier of an external address.
    ComputeEngineNetworkTier {
        /// Not said.
        Unspecified = 0, "COMPUTE_ENGINE_NETWORK_TIER_UNSPECIFIED";
        /// Standard.
        Standard = 1, "NETWORK_TIER_STANDARD";
        /// Premium.
        Premium = 2, "NETWORK_TIER_PREMIUM";
    }

    /// A change of the firmware.
    BootConversion {
        /// Not said.
        Unspecified = 0, "BOOT_CONVERSION_UNSPECIFIED";
        /// None.
        None = 1, "NONE";
        /// From BIOS to EFI.
        BiosToEfi = 2, "BIOS_TO_EFI";
    }

    /// The type of an applied license.
    AppliedLicenseType {
        /// Not said.
        Unspecified = 0, "TYPE_UNSPECIFIED";
        /// None.
        None = 1, "NONE";
        /// Pay as you go.
        Payg = 2, "PAYG";
        /// Bring your own.
        Byol = 3, "BYOL";
    }

    /// What happens to a VM while its host is maintained.
    OnHostMaintenance {
        /// Not said.
        Unspecified = 0, "ON_HOST_MAINTENANCE_UNSPECIFIED";
        /// It is stopped.
        Terminate = 1, "TERMINATE";
        /// It moves.
        Migrate = 2, "MIGRATE";
    }

    /// Whether a VM starts again by itself.
    RestartType {
        /// Not said.
        Unspecified = 0, "RESTART_TYPE_UNSPECIFIED";
        /// It does.
        AutomaticRestart = 1, "AUTOMATIC_RESTART";
        /// It does not.
        NoAutomaticRestart = 2, "NO_AUTOMATIC_RESTART";
    }

    /// Whether nodes with a label are wanted.
    NodeAffinityOperator {
        /// Not said.
        Unspecified = 0, "OPERATOR_UNSPECIFIED";
        /// They are.
        In = 1, "IN";
        /// They are not.
        NotIn = 2, "NOT_IN";
    }

    /// The type of a disk in v1alpha1; the numbers are the places in its discovery document.
    DiskTypeAlpha {
        /// Not said.
        Unspecified = 0, "DISK_TYPE_UNSPECIFIED";
        /// Standard.
        Standard = 1, "STANDARD";
        /// Balanced.
        Balanced = 2, "BALANCED";
        /// SSD.
        Ssd = 3, "SSD";
        /// Hyperdisk balanced.
        HyperdiskBalanced = 4, "HYPERDISK_BALANCED";
        /// Hyperdisk balanced, highly available.
        HyperdiskBalancedHighAvailability = 5, "HYPERDISK_BALANCED_HIGH_AVAILABILITY";
    }

    /// Who brings the license of the OS in v1alpha1.
    LicenseTypeAlpha {
        /// The default of the OS.
        Default = 0, "DEFAULT";
        /// Pay as you go.
        Payg = 1, "PAYG";
        /// Bring your own.
        Byol = 2, "BYOL";
    }

    /// The firmware in v1alpha1.
    BootOptionAlpha {
        /// Not said.
        Unspecified = 0, "BOOT_OPTION_UNSPECIFIED";
        /// EFI.
        Efi = 1, "EFI";
        /// BIOS.
        Bios = 2, "BIOS";
    }
}
